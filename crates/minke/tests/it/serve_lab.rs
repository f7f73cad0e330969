//! The lab in the browser: two people, an idea and its repeat, a join that both sides want, runs that are watched to their
//! end, and runs that put anything they like where pages look.

use std::thread::sleep;
use std::time::{Duration, Instant};

use form_urlencoded::Serializer;
use ureq::Body;
use ureq::http::Response;

use crate::client::{Person, Served, between, read};
use crate::{Place, tiny};

/// A lab with one chip, Ada's, and Bob.
fn lab(place: &Place) -> Served {
    Served::start(place, &["--person", "Ada", "--chips", "1"])
}

fn invited<'a>(served: &'a Served, by: &Person<'_>, name: &str) -> Person<'a> {
    let page = read(by.form("/account/invite", &format!("name={name}")));
    served.log_in(&between(&page, "class=\"secret\">", "<")).expect("the invitation logs in")
}

fn send(person: &Person<'_>, path: &str, fields: &[(&str, &str)]) -> Response<Body> {
    person.form(path, &Serializer::new(String::new()).extend_pairs(fields).finish())
}

/// Where a form led.
fn led(response: Response<Body>) -> String {
    assert_eq!(response.status(), 303, "{}", read(response));
    response.headers()["location"].to_str().unwrap().to_string()
}

fn page(person: &Person<'_>, path: &str) -> String {
    let response = person.get(path);
    assert_eq!(response.status(), 200, "{path}");
    read(response)
}

/// The run's page, once it is in a state.
fn wait(person: &Person<'_>, run: u32, state: &str) -> String {
    let begin = Instant::now();
    loop {
        let page = page(person, &format!("/runs/{run}"));
        if page.contains(&format!("<span class=\"state {state}\">")) {
            return page;
        }
        assert!(begin.elapsed() < Duration::from_secs(90), "run {run} is not {state}: {page}");
        sleep(Duration::from_millis(50));
    }
}

#[test]
fn an_idea_is_tried_found_again_and_joined_and_its_run_watched_to_its_end() {
    let place = Place::new();
    let served = lab(&place);
    let ada = served.log_in(&served.login).unwrap();
    let bob = invited(&served, &ada, "Bob");
    assert_eq!(led(send(&bob, "/account/interests", &[("interests", "verifiers & <b>proofs</b>")])), "/account");
    assert!(page(&bob, "/account").contains("value=\"verifiers &amp; &lt;b&gt;proofs&lt;/b&gt;\""));

    let attempt = |sentence: &'static str| {
        [("sentence", sentence), ("command", "minke train recipe.toml"), ("chips", "1")]
            .map(|(a, b)| (a, b.to_string()))
    };
    let recipe = tiny();
    let tried = |person: &Person<'_>, sentence, more: &[(&str, &str)]| {
        let fields = attempt(sentence);
        let mut fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        fields.push(("recipe", &recipe));
        fields.extend(more);
        send(person, "/ideas", &fields)
    };
    assert_eq!(led(tried(&ada, "Do <i>tiny</i> thoughts help tiny sums?", &[])), "/runs/1");
    // It is shown before anything is run, and joined instead.
    let advice = read(tried(&bob, "tiny thoughts help with tiny sums", &[]));
    assert!(advice.contains("Ada started “Do &lt;i&gt;tiny&lt;/i&gt; thoughts help tiny sums?”"), "{advice}");
    assert!(advice.contains("action=\"/advice/1\"") && advice.contains("Go on all the same"), "{advice}");
    assert_eq!(bob.get("/runs/2").status(), 404);
    let joins = [("choice", "join"), ("idea", "1"), ("run", "1")];
    assert_eq!(send(&ada, "/advice/1", &joins).status(), 409, "it was not shown to her");
    assert_eq!(led(send(&bob, "/advice/1", &joins)), "/ideas/1");
    assert!(page(&bob, "/ideas/1").contains("action=\"/inbox/1/withdraw\""));
    assert!(page(&bob, "/inbox").contains("You have asked"));
    let inbox = page(&ada, "/inbox");
    assert!(inbox.contains("<strong>Bob</strong> would like to join"), "{inbox}");
    assert!(page(&ada, "/chat").contains("title=\"questions that wait for your answer\">1</span>"));
    assert_eq!(send(&bob, "/inbox/1", &[("answer", "yes")]).status(), 409);
    assert_eq!(led(send(&ada, "/inbox/1", &[("answer", "yes")])), "/inbox");
    assert!(!page(&ada, "/chat").contains("class=\"count\""));
    let idea = page(&bob, "/ideas/1");
    assert!(idea.contains("Another run") && idea.contains("state accepted"), "{idea}");

    let done = wait(&bob, 1, "done");
    for part in ["Reward", "Held-out problems", "Talk to the model", "/chat?model=r1", "its command came to its end"] {
        assert!(done.contains(part), "{part}: {done}");
    }
    assert!(!done.contains("data-live"), "nothing more will come: {done}");
    assert!(page(&bob, "/chat?model=r1").contains("<option value=\"r1\" selected"));
    let last = page(&bob, "/runs/1/rollouts");
    assert!(
        last.contains("Rollouts of step 10") && last.contains("step=9\">") && last.contains("advantage "),
        "{last}"
    );
    assert_eq!(last.matches("class=\"prompt\"").count(), 4);
    assert_eq!(last.matches("class=\"rollout\"").count(), 16);
    assert!(page(&bob, "/runs/1/rollouts?step=7&from=1").matches("class=\"prompt\"").count() == 3);
    for step in ["1", "99", "18446744073709551615"] {
        assert_eq!(bob.get(&format!("/runs/1/rollouts?step={step}")).status(), 404, "{step}");
    }
    let ideas = page(&ada, "/ideas");
    assert!(
        ideas.contains("Do &lt;i&gt;tiny&lt;/i&gt; thoughts") && ideas.contains("of 8 held-out problems"),
        "{ideas}"
    );
    assert!(ideas.contains("Ada, Bob") && ideas.contains("state answered"), "{ideas}");
    let cluster = page(&ada, "/cluster");
    assert!(cluster.contains("1 of 1 chip free") && cluster.contains("1 of them not run again"), "{cluster}");

    // Another run is like the last one: its command and its code are there already.
    let idea = page(&bob, "/ideas/1");
    assert!(idea.contains("value=\"minke train recipe.toml\"") && idea.contains("that of run 1"), "{idea}");
    let more = [("idea", "1"), ("command", "minke train recipe.toml --seed 9"), ("chips", "1"), ("code", "1")];
    assert_eq!(led(send(&bob, "/ideas", &more)), "/runs/2");
    wait(&bob, 2, "done");
    assert_eq!(send(&bob, "/ideas", &[("idea", "1"), ("command", "ls"), ("chips", "1"), ("code", "9")]).status(), 404);

    // Whoever goes on all the same does.
    let again = tried(&bob, "tiny thoughts help tiny sums, and more", &[]);
    let number = between(&read(again), "name=\"advice\" value=\"", "\"");
    let on = [("advice", number.as_str()), ("choice", "go_on")];
    assert_eq!(led(tried(&bob, "tiny thoughts help tiny sums, and more", &on)), "/runs/3");
    assert!(page(&bob, "/ideas/2").contains("Ada and Bob started"));
    assert_eq!(led(send(&bob, "/runs/3/stop", &[])), "/runs/3");
    wait(&bob, 3, "stopped");
}

#[test]
fn people_are_asked_and_may_say_no_or_be_asked_no_more() {
    let place = Place::new();
    let served = lab(&place);
    let ada = served.log_in(&served.login).unwrap();
    let bob = invited(&served, &ada, "Bob");
    send(&bob, "/account/interests", &[("interests", "counting")]);
    let tries = |sentence, command| [("sentence", sentence), ("command", command), ("chips", "1")];
    assert_eq!(led(send(&ada, "/ideas", &tries("sheep", "sh -c 'exec sleep 60'"))), "/runs/1");
    let broken = [("sentence", "a"), ("command", "sh -c 'x"), ("chips", "1")];
    let said = read(send(&ada, "/ideas", &broken));
    assert!(said.contains("not closed"), "{said}");
    wait(&ada, 1, "running");
    let mine = page(&ada, "/ideas/1");
    assert!(mine.contains("Bob – counting"), "{mine}");
    let invite = [("person", "2"), ("message", "<script>alert(1)</script>")];
    assert_eq!(send(&bob, "/ideas/1/invite", &invite).status(), 409);
    for (answer, status) in [("no", "declined"), ("yes", "accepted")] {
        assert_eq!(led(send(&ada, "/ideas/1/invite", &invite)), "/ideas/1");
        let inbox = page(&bob, "/inbox");
        assert!(inbox.contains("&lt;script&gt;alert(1)&lt;/script&gt;") && !inbox.contains("<script>alert"), "{inbox}");
        let question = between(&inbox, "action=\"/inbox/", "\"");
        assert_eq!(send(&bob, &format!("/inbox/{question}"), &[("answer", "perhaps")]).status(), 400);
        assert_eq!(led(send(&bob, &format!("/inbox/{question}"), &[("answer", answer)])), "/inbox");
        assert!(page(&ada, "/inbox").contains(&format!("state {status}")));
    }
    assert!(page(&bob, "/runs/1").contains("Ada, Bob"));
    // A second run waits, and says why; one may leave, and what one has asked for be taken back.
    assert_eq!(led(send(&bob, "/ideas", &tries("goats and cows", "sleep 61"))), "/runs/2");
    let cluster = page(&bob, "/cluster");
    assert!(cluster.contains("0 of 1 chip free") && cluster.contains("run 1 of Ada and Bob comes first"), "{cluster}");
    assert_eq!(led(send(&ada, "/ideas/2/join", &[])), "/ideas/2");
    let question = between(&page(&ada, "/ideas/2"), "action=\"/inbox/", "/withdraw");
    assert_eq!(send(&bob, &format!("/inbox/{question}/withdraw"), &[]).status(), 409);
    assert_eq!(led(send(&ada, &format!("/inbox/{question}/withdraw"), &[])), "/inbox");
    assert_eq!(send(&bob, &format!("/inbox/{question}"), &[("answer", "yes")]).status(), 409);
    assert_eq!(led(send(&bob, "/ideas/1/leave", &[])), "/ideas/1");
    assert!(page(&bob, "/ideas/1").contains("Ask to join"));
    // Two ideas become one.
    assert_eq!(led(send(&ada, "/ideas/1/merge", &[("other", "2")])), "/ideas/1");
    let inbox = page(&bob, "/inbox");
    assert!(inbox.contains("to go on as part of"), "{inbox}");
    let question = between(&inbox, "action=\"/inbox/", "\"");
    assert_eq!(led(send(&bob, &format!("/inbox/{question}"), &[("answer", "yes")])), "/inbox");
    assert!(page(&bob, "/ideas/2").contains("merged into 1") && page(&bob, "/ideas/1").contains("/runs/2"));
    assert_eq!(led(send(&bob, "/ideas/1/park", &[("parked", "yes")])), "/ideas/1");
    assert!(page(&bob, "/ideas/1").contains("state parked"));
    assert_eq!(led(send(&bob, "/ideas/1/park", &[("parked", "no")])), "/ideas/1");
    // What is not one's own is not one's to stop.
    let cleo = invited(&served, &ada, "Cleo");
    assert!(!page(&cleo, "/runs/1").contains("Stop it"));
    assert_eq!(send(&cleo, "/runs/1/stop", &[]).status(), 409);
    for run in [2, 1] {
        assert_eq!(led(send(&ada, &format!("/runs/{run}/stop"), &[])), format!("/runs/{run}"));
        wait(&ada, run, "stopped");
    }
}

/// What a run that means harm leaves where pages look.
const HARM: &str = r#"
set -e
cd "$MINKE_RUN"
ln -s "$1/secret" metrics.jsonl
ln -s "$1/secret" report.md
ln -s "$1/secret" report.json
mkdir model rollouts
ln -s "$1/secret" model/config.json
mkfifo rollouts/000009.jsonl.gz
item='{"level":1,"prompt":"<img src=x>","numbers":[],"target":0}'
numbers='"prompt_tokens":[],"tokens":[],"log_probs":[],"thought_tokens":0'
tail="$numbers"',"finished":true,"reward":1e30,"reason":"<b>","advantage":0}'
{
  echo '{"version":1,"step":1,"rollouts":1}'
  echo '{"prompt":0,"sample":0,"item":'"$item"',"text":"<think><script>alert(1)</script></think>",'"$tail"
  echo 'no rollout'
} | gzip > rollouts/000001.jsonl.gz
head -c 100000000 /dev/zero | gzip > rollouts/000002.jsonl.gz
printf '\033[31m<script>alert(2)</script>\033[0m\n'
"#;

#[test]
fn what_a_hostile_run_leaves_is_text_and_nothing_of_others() {
    let place = Place::new();
    let served = lab(&place);
    let ada = served.log_in(&served.login).unwrap();
    place.write("secret", "{\"hush\":1}\n{\"hush\":2}\n");
    let command = format!("sh -c '{}' x {}", HARM.replace('\'', "'\\''"), place.path("").display());
    let fields = [("sentence", "<script>alert(0)</script>"), ("command", &command), ("chips", "1")];
    assert_eq!(led(send(&ada, "/ideas", &fields)), "/runs/1");
    let begin = Instant::now();
    while !page(&ada, "/runs/1").contains("Has ended") {
        assert!(begin.elapsed() < Duration::from_secs(60));
        sleep(Duration::from_millis(50));
    }
    let run = page(&ada, "/runs/1");
    assert!(run.contains("state done"), "{run}");
    for path in ["/runs/1", "/runs/1/rollouts?step=1", "/runs", "/ideas", "/ideas/1", "/cluster"] {
        let page = page(&ada, path);
        assert!(
            !page.contains("hush") && !page.contains("<script>alert") && !page.contains("<img src=x"),
            "{path}: {page}"
        );
    }
    assert!(run.contains("\n&lt;script&gt;alert(2)") || run.contains(">&lt;script&gt;alert(2)"), "{run}");
    assert!(!run.contains("Talk to its model"), "{run}");
    let rollouts = page(&ada, "/runs/1/rollouts?step=1");
    assert!(rollouts.contains("&lt;img src=x&gt;") && rollouts.contains("Not all of it can be read"), "{rollouts}");
    // A bomb of a hundred megabytes, and a pipe that nobody writes to.
    assert!(page(&ada, "/runs/1/rollouts?step=2").contains("Not all of it can be read"));
    assert_eq!(ada.get("/runs/1/rollouts?step=9").status(), 404);
    let models = page(&ada, "/chat");
    assert!(!models.contains("value=\"r1\""), "{models}");
}
