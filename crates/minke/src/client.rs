//! The command line's end of a lab's server: the one that MINKE_SERVER names, or the one at work on this machine, which is
//! started where there is none.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use ureq::Agent;

use crate::store::Store;
use crate::terminal::say;

/// How long a server may take to start.
const STARTING: Duration = Duration::from_secs(20);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Most bytes of an answer.
const ANSWER_MAX: u64 = 64 << 20;

/// Where a server of this machine is found, and how its owner's commands get in: `server.json`, its owner's alone.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Door {
    /// Such as `http://127.0.0.1:7373`.
    pub address: String,
    /// An API key.
    pub key: String,
}

impl Door {
    /// The server at work on this machine, if it says that it is there.
    pub fn find(store: &Store) -> Option<Door> {
        serde_json::from_slice(&fs::read(store.door()).ok()?).ok()
    }

    /// Says that a server is there. Nobody but its owner gets to read the key.
    pub fn open(&self, store: &Store) -> Result<()> {
        let path = store.door();
        let partial = path.with_extension("partial");
        let mut options = fs::OpenOptions::new();
        options.create(true).write(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let written = options.open(&partial).and_then(|mut file| file.write_all(&serde_json::to_vec(self)?));
        written.and_then(|()| fs::rename(&partial, &path)).with_context(|| path.display().to_string())
    }
}

/// A server that was found.
pub struct Client {
    agent: Agent,
    door: Door,
}

impl Client {
    /// Finds a server, or starts one.
    pub fn connect() -> Result<Client> {
        let config = Agent::config_builder().timeout_global(Some(PATIENCE)).http_status_as_error(false).build();
        let agent = Agent::new_with_config(config);
        if let Ok(address) = std::env::var("MINKE_SERVER") {
            let key = std::env::var("MINKE_KEY");
            let key = key.context("MINKE_SERVER names a server, so set MINKE_KEY to a key from its account page")?;
            let address = address.trim_end_matches('/').to_string();
            return Ok(Client { agent, door: Door { address, key } });
        }
        let store = Store::open()?;
        let reached =
            |door: Option<Door>| door.filter(|door| agent.get(format!("{}/health", door.address)).call().is_ok());
        if let Some(door) = reached(Door::find(&store)) {
            return Ok(Client { agent, door });
        }
        start(&store)?;
        let begin = Instant::now();
        while begin.elapsed() < STARTING {
            if let Some(door) = reached(Door::find(&store)) {
                say(&format!("started the lab at {}, where it goes on in the background", door.address));
                return Ok(Client { agent, door });
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        bail!("the lab did not start; {} says why", store.server_log().display())
    }

    /// The server's address.
    pub fn address(&self) -> &str {
        &self.door.address
    }

    /// Asks for something.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let request = self.agent.get(format!("{}{path}", self.door.address));
        self.read(request.header("authorization", format!("Bearer {}", self.door.key)).call())
    }

    /// Has something done.
    pub fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T> {
        let request = self.agent.post(format!("{}{path}", self.door.address));
        let request = request.header("authorization", format!("Bearer {}", self.door.key));
        self.read(request.header("content-type", "application/json").send(serde_json::to_vec(body)?))
    }

    fn read<T: DeserializeOwned>(&self, answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<T> {
        let unreachable =
            || format!("the lab at {} can't be reached; see that `minke serve` runs there", self.door.address);
        let mut answer = answer.with_context(unreachable)?;
        let status = answer.status();
        let bytes = answer.body_mut().with_config().limit(ANSWER_MAX).read_to_vec().with_context(unreachable)?;
        if !status.is_success() {
            let value: Value = serde_json::from_slice(&bytes).unwrap_or_default();
            match value.pointer("/error/message").and_then(Value::as_str) {
                Some(message) => bail!("{message}"),
                None => bail!("the lab at {} answered {status}", self.door.address),
            }
        }
        serde_json::from_slice(&bytes).with_context(|| {
            format!("the lab at {} speaks otherwise than this minke; use its version", self.door.address)
        })
    }
}

/// Starts a server that outlives this command.
fn start(store: &Store) -> Result<()> {
    let log = store.server_log();
    if let Some(home) = log.parent() {
        fs::create_dir_all(home).with_context(|| home.display().to_string())?;
    }
    let log = File::create(&log).with_context(|| log.display().to_string())?;
    let program = std::env::current_exe().context("this program's own file can't be found")?;
    let mut command = Command::new(program);
    command.arg("serve").current_dir(Path::new("/")).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    // Ctrl-C is meant for this command, not for the lab.
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    command.spawn().context("the lab can't be started")?;
    Ok(())
}
