//! `/api/`: the lab for programs, the command line among them.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;

use anyhow::{Result, anyhow};
use axum::Extension;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::response::IntoResponse;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use minke_lab::tree::Tree;
use minke_lab::{Action, Event, Fingerprint, IdeaId, LinkId, LinkKind, PersonId, RunId, Which};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::{answers, now};
use crate::serve::Shared;
use crate::serve::error::Failure;
use crate::serve::guard::Visitor;
use crate::serve::loaded::blocking;
use crate::serve::models::object;
use crate::told::{self, Attempt, Tried};

/// Most bytes of a log that one answer has.
const LOG_PART: u64 = 256 << 10;

pub type Answer<T = ()> = std::result::Result<T, Failure>;

/// A body of JSON.
fn parse<T: DeserializeOwned>(body: &Bytes) -> Answer<T> {
    serde_json::from_slice(body).map_err(|error| Failure::bad_request(format!("the body can't be understood: {error}")))
}

fn answer<T: serde::Serialize>(value: &T) -> Answer<impl IntoResponse + use<T>> {
    let value = serde_json::to_value(value).map_err(|error| Failure::internal(&error.into()))?;
    Ok(object(&value))
}

pub fn me(visitor: &Visitor) -> PersonId {
    PersonId(visitor.person.id)
}

/// `POST /api/try`
pub async fn try_idea(
    State(shared): State<Shared>,
    Extension(visitor): Extension<Visitor>,
    body: Bytes,
) -> Answer<impl IntoResponse> {
    answer(&attempt(&shared, me(&visitor), parse(&body)?).await?)
}

/// Shows what is like the idea, or runs it.
pub async fn attempt(shared: &Shared, by: PersonId, attempt: Attempt) -> Answer<Tried> {
    let desk = &shared.desk;
    let Attempt { sentence, idea, parent, command, chips, files, code_of, advice } = attempt;
    let mut tree = tree(files)?;
    if let Some(run) = code_of {
        tree.fill_in(code(shared, run).await?);
        tree.check().map_err(|error| Failure::bad_request(error.to_string()))?;
    }
    let fingerprint = Fingerprint::of(&command, &tree.files);
    match advice {
        Some((id, choice)) => {
            desk.tell(Event::Choose { by, advice: minke_lab::AdviceId(id), choice }).await?;
        }
        // Whoever goes on with an idea knows it.
        None if idea.is_none() => {
            let (asked, print) = (sentence.clone().unwrap_or_default(), fingerprint.clone());
            let shown = desk.with(move |host| Ok(host.lab().repeats(&asked, &print))).await?;
            if !shown.is_empty() {
                let sentence = sentence.clone().unwrap_or_default();
                let told = desk.tell(Event::Advise { by, sentence, shown: shown.clone() }).await?;
                let Action::Advised(advice) = told else { return Err(unexpected(&told)) };
                let repeats = desk
                    .with(move |host| {
                        Ok(shown.iter().map(|repeat| answers::alike(host.lab(), repeat, now())).collect())
                    })
                    .await?;
                return Ok(Tried::Repeats { advice: advice.0, repeats });
            }
        }
        None => {}
    }
    let code = desk.with(|host| Ok(host.launcher().code())).await?;
    let tree = blocking(move || Ok(tree.keep(&code)?)).await?;
    let idea = match idea {
        Some(id) => Which::Known(IdeaId(id)),
        None => Which::New { sentence: sentence.unwrap_or_default(), parent: parent.map(IdeaId) },
    };
    match desk.tell(Event::Try { by, idea, command, chips, tree, fingerprint }).await? {
        Action::Tried { idea, run } => Ok(Tried::Run { idea: idea.0, run: run.0 }),
        other => Err(unexpected(&other)),
    }
}

pub fn unexpected(action: &Action) -> Failure {
    Failure::internal(&anyhow!("the lab answered {action:?}"))
}

/// The files that a run was given.
async fn code(shared: &Shared, run: u32) -> Answer<Tree> {
    let kept = shared.desk.with(move |host| {
        let run = host.lab().runs().get(&RunId(run));
        Ok(run.map(|run| (host.launcher().code(), run.tree.clone())))
    });
    let (code, hash) = kept.await?.ok_or_else(|| Failure::not_found(format!("there is no run {run}")))?;
    blocking(move || Ok(if hash.is_empty() { Tree::default() } else { Tree::load(&code, &hash)? })).await
}

fn tree(files: std::collections::BTreeMap<String, told::CodeFile>) -> Answer<Tree> {
    let mut tree = Tree::default();
    for (path, file) in files {
        let bytes = match (file.text, file.base64) {
            (Some(text), None) => text.into_bytes(),
            (None, Some(coded)) => STANDARD
                .decode(coded)
                .map_err(|error| Failure::bad_request(format!("{path:?} is not base64: {error}")))?,
            _ => return Err(Failure::bad_request(format!("{path:?} needs either text or base64"))),
        };
        if file.executable {
            tree.executable.push(path.clone());
        }
        tree.files.insert(path, bytes);
    }
    tree.check().map_err(|error| Failure::bad_request(error.to_string()))?;
    Ok(tree)
}

/// `POST /api/advice/N` with `{"choice": "join"}`
pub async fn choose(
    State(shared): State<Shared>,
    Extension(visitor): Extension<Visitor>,
    Path(id): Path<u32>,
    body: Bytes,
) -> Answer<impl IntoResponse> {
    #[derive(Deserialize)]
    struct Chosen {
        choice: minke_lab::Choice,
    }
    let Chosen { choice } = parse(&body)?;
    done(&shared, Event::Choose { by: me(&visitor), advice: minke_lab::AdviceId(id), choice }).await
}

/// `GET /api/ideas`
pub async fn ideas(State(shared): State<Shared>) -> Answer<impl IntoResponse> {
    let ideas: Vec<told::Idea> = shared
        .desk
        .with(|host| Ok(host.lab().ideas().values().rev().map(|idea| answers::idea(host.lab(), idea)).collect()))
        .await?;
    answer(&ideas)
}

/// `GET /api/ideas/N`
pub async fn idea(State(shared): State<Shared>, Path(id): Path<u32>) -> Answer<impl IntoResponse> {
    let idea = shared
        .desk
        .with(move |host| Ok(host.lab().ideas().get(&IdeaId(id)).map(|idea| answers::idea(host.lab(), idea))))
        .await?;
    answer(&idea.ok_or_else(|| Failure::not_found(format!("there is no idea {id}")))?)
}

/// `POST /api/ideas/N/ask` with `{"kind": "join" | "invite" | {"merge": M}, "to": NAME, "message": …}`
pub async fn ask(
    State(shared): State<Shared>,
    Extension(visitor): Extension<Visitor>,
    Path(id): Path<u32>,
    body: Bytes,
) -> Answer<impl IntoResponse> {
    #[derive(Deserialize)]
    struct Asked {
        kind: LinkKind,
        #[serde(default)]
        to: Option<String>,
        #[serde(default)]
        message: String,
    }
    let Asked { kind, to, message } = parse(&body)?;
    let to = match to {
        None => None,
        Some(name) => Some(person(&shared, &name).await?),
    };
    match shared.desk.tell(Event::Ask { by: me(&visitor), kind, idea: IdeaId(id), to, message }).await? {
        Action::Asked(link) => answer(&json!({ "question": link.0 })),
        other => Err(unexpected(&other)),
    }
}

async fn person(shared: &Shared, name: &str) -> Answer<PersonId> {
    let wanted = name.to_string();
    let found = shared.desk.with(move |host| Ok(host.lab().person_called(&wanted).map(|person| person.id))).await?;
    found.ok_or_else(|| Failure::not_found(format!("nobody here is called {name:?}")))
}

/// `POST /api/ideas/N/leave`
pub async fn leave(
    State(shared): State<Shared>,
    Extension(visitor): Extension<Visitor>,
    Path(id): Path<u32>,
) -> Answer<impl IntoResponse> {
    done(&shared, Event::Leave { by: me(&visitor), idea: IdeaId(id) }).await
}

/// `POST /api/ideas/N/park` with `{"parked": true}`
pub async fn park(
    State(shared): State<Shared>,
    Extension(visitor): Extension<Visitor>,
    Path(id): Path<u32>,
    body: Bytes,
) -> Answer<impl IntoResponse> {
    #[derive(Deserialize)]
    struct Parked {
        parked: bool,
    }
    let Parked { parked } = parse(&body)?;
    done(&shared, Event::Park { by: me(&visitor), idea: IdeaId(id), parked }).await
}

/// `GET /api/inbox`: what was asked of whoever asks, and what they have asked.
pub async fn inbox(State(shared): State<Shared>, Extension(visitor): Extension<Visitor>) -> Answer<impl IntoResponse> {
    answer(&questions(&shared, me(&visitor)).await?)
}

/// Questions to and from a person, latest first.
pub async fn questions(shared: &Shared, reader: PersonId) -> Answer<Vec<told::Question>> {
    shared
        .desk
        .with(move |host| {
            let lab = host.lab();
            let theirs = lab.links().values().rev().filter(|link| link.from == reader || link.to.contains(&reader));
            Ok(theirs.map(|link| answers::question(lab, link, reader)).collect())
        })
        .await
}

/// `POST /api/inbox/N` with `{"yes": true}`
pub async fn reply(
    State(shared): State<Shared>,
    Extension(visitor): Extension<Visitor>,
    Path(id): Path<u32>,
    body: Bytes,
) -> Answer<impl IntoResponse> {
    #[derive(Deserialize)]
    struct Reply {
        yes: bool,
    }
    let Reply { yes } = parse(&body)?;
    done(&shared, Event::Answer { by: me(&visitor), link: LinkId(id), yes }).await
}

/// `POST /api/inbox/N/withdraw`
pub async fn withdraw(
    State(shared): State<Shared>,
    Extension(visitor): Extension<Visitor>,
    Path(id): Path<u32>,
) -> Answer<impl IntoResponse> {
    done(&shared, Event::Withdraw { by: me(&visitor), link: LinkId(id) }).await
}

/// `GET /api/runs`, latest first.
pub async fn runs(State(shared): State<Shared>) -> Answer<impl IntoResponse> {
    let runs: Vec<told::Run> = shared
        .desk
        .with(|host| {
            let lab = host.lab();
            Ok(lab.runs().values().rev().map(|run| answers::run(lab, run, &[], now())).collect())
        })
        .await?;
    answer(&runs)
}

/// `GET /api/runs/N`, with what was decided about it.
pub async fn run(State(shared): State<Shared>, Path(id): Path<u32>) -> Answer<impl IntoResponse> {
    answer(&one_run(&shared, RunId(id)).await?)
}

/// A run with what was decided about it.
pub async fn one_run(shared: &Shared, id: RunId) -> Answer<told::Run> {
    let run = shared
        .desk
        .with(move |host| {
            let Some(run) = host.lab().runs().get(&id) else { return Ok(None) };
            let decisions = host.store().decisions(Some(id))?;
            Ok(Some(answers::whole_run(host.lab(), run, &decisions, now())))
        })
        .await?;
    run.ok_or_else(|| Failure::not_found(format!("there is no run {}", id.0)))
}

/// `POST /api/runs/N/stop`
pub async fn stop(
    State(shared): State<Shared>,
    Extension(visitor): Extension<Visitor>,
    Path(id): Path<u32>,
) -> Answer<impl IntoResponse> {
    done(&shared, Event::Stop { by: me(&visitor), run: RunId(id) }).await
}

/// Where to go on reading from.
#[derive(Deserialize)]
pub struct From {
    #[serde(default)]
    from: u64,
}

/// `GET /api/runs/N/log?from=BYTES`: what all its stints have printed, one after the other.
pub async fn log(
    State(shared): State<Shared>,
    Path(id): Path<u32>,
    Query(From { from }): Query<From>,
) -> Answer<impl IntoResponse> {
    let run = RunId(id);
    let found = shared
        .desk
        .with(move |host| {
            let logs = |segments: usize| (0..segments).map(|i| host.launcher().log(run, i)).collect::<Vec<PathBuf>>();
            Ok(host.lab().runs().get(&run).map(|run| (logs(run.segments.len()), run.state.is_over())))
        })
        .await?;
    let (logs, over) = found.ok_or_else(|| Failure::not_found(format!("there is no run {id}")))?;
    let (text, next) = blocking(move || part(&logs, from)).await?;
    answer(&told::Log { over: over && text.is_empty(), text, next })
}

/// The part of some files, one after the other, that begins at a byte; never half a character.
fn part(files: &[PathBuf], mut from: u64) -> Result<(String, u64)> {
    let (mut bytes, begin) = (Vec::new(), from);
    for path in files {
        let Ok(mut file) = File::open(path) else { continue };
        let length = file.metadata()?.len();
        if from < length {
            file.seek(SeekFrom::Start(from))?;
            let room = LOG_PART - bytes.len() as u64;
            file.take(room).read_to_end(&mut bytes)?;
            from = 0;
        } else {
            from -= length;
        }
        if bytes.len() as u64 >= LOG_PART {
            break;
        }
    }
    // Only a character that is cut off at the end may still come whole.
    let whole = match str::from_utf8(&bytes) {
        Err(error) if error.error_len().is_none() && error.valid_up_to() > 0 => error.valid_up_to(),
        _ => bytes.len(),
    };
    Ok((String::from_utf8_lossy(&bytes[..whole]).into_owned(), begin + whole as u64))
}

/// `GET /api/people`
pub async fn people(State(shared): State<Shared>) -> Answer<impl IntoResponse> {
    let people = shared.desk.with(|host| Ok(host.lab().people().values().map(answers::person).collect()));
    let people: Vec<told::Person> = people.await?;
    answer(&people)
}

/// `GET /api/worth`
pub async fn worth(State(shared): State<Shared>) -> Answer<impl IntoResponse> {
    answer(&shared.desk.with(|host| Ok(host.lab().worth(now()))).await?)
}

async fn done(shared: &Shared, event: Event) -> Answer<impl IntoResponse + use<>> {
    shared.desk.tell(event).await?;
    answer(&json!({ "done": true }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_are_read_on_across_stints_and_characters() {
        let directory = tempfile::tempdir().unwrap();
        let paths: Vec<PathBuf> = ["a", "missing", "b"].iter().map(|name| directory.path().join(name)).collect();
        std::fs::write(&paths[0], "one é").unwrap();
        std::fs::write(&paths[2], "two").unwrap();
        assert_eq!(part(&paths, 0).unwrap(), ("one étwo".into(), 9));
        assert_eq!(part(&paths, 4).unwrap(), ("étwo".into(), 9));
        assert_eq!(part(&paths, 7).unwrap(), ("wo".into(), 9));
        assert_eq!(part(&paths, 9).unwrap(), (String::new(), 9));
        // Half of a character is left for later.
        std::fs::write(&paths[2], b"two\xc3").unwrap();
        assert_eq!(part(&paths, 6).unwrap(), ("two".into(), 9));
    }
}
