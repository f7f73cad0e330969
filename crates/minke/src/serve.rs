//! `minke serve`: the web app and the API. This file starts and stops it.

mod account;
mod arena;
mod assets;
mod attempts;
mod chat;
mod chat_page;
mod cluster;
mod completions;
mod conversations;
mod credentials;
mod curves;
mod database;
mod engine_thread;
mod error;
mod guard;
mod health;
mod ideas;
mod inbox;
mod lab;
mod loaded;
mod login;
mod metrics;
mod models;
mod page;
mod parameters;
mod parts;
mod records;
mod reply;
mod rollouts;
mod router;
mod runs;
mod share;
mod steps;
mod stops;
mod tls;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use axum::serve::{Listener, ListenerExt};
use minke_kernels::kv::KvDtype;
use minke_lab::policy::Pace;
use minke_model::Precision;
use serde::Serialize;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

use self::credentials::{Kind, issue, keys, revoke};
use self::database::Database;
use self::lab::Desk;
use self::loaded::Loaded;
use self::metrics::Metrics;
use crate::client::Door;
use crate::output::{Show, print};
use crate::speculate::{Speculate, Speculation};
use crate::store::Store;
use crate::{interrupt, load, machine};

/// Days that the login link on the terminal is good for.
const LINK_DAYS: i64 = 1;
/// What the key of this machine's own commands is called.
const DOOR: &str = "commands on this machine";
/// Days that it is good for; a server that is started anew makes another.
const DOOR_DAYS: i64 = 365;
/// How long requests may take to end when the server is stopped.
const PATIENCE: Duration = Duration::from_secs(5);
/// Memory for models where the machine does not say how much it has.
const MEMORY: u64 = 4_000_000_000;

/// How to serve.
pub struct Options {
    pub listen: SocketAddr,
    /// Files of a certificate and its key.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Whether other machines may be served without TLS.
    pub insecure: bool,
    pub precision: Precision,
    /// What guesses for models.
    pub speculate: Speculate,
    pub kv: KvDtype,
    /// Bytes that models may take together.
    pub memory: Option<u64>,
    /// Whom the login link is for, if not whoever runs this.
    pub person: Option<String>,
    /// How many chips the lab shares out; by default one for each core.
    pub chips: Option<u32>,
    /// How fast the lab's chips change hands.
    pub pace: Pace,
    pub json: bool,
}

/// What all requests share.
pub type Shared = Arc<Server>;

/// The server's parts.
pub struct Server {
    loaded: Arc<Loaded>,
    desk: Desk,
    database: Database,
    metrics: Metrics,
    site: Site,
    /// How to stop the reply that is being written in a conversation.
    writing: Mutex<BTreeMap<i64, Arc<Notify>>>,
    checksums: arena::Checksums,
    stopping: watch::Sender<bool>,
}

/// Where the server is found.
#[derive(Clone, Copy, Debug)]
pub struct Site {
    pub address: SocketAddr,
    pub tls: bool,
}

impl Site {
    pub fn scheme(&self) -> &'static str {
        if self.tls { "https" } else { "http" }
    }

    /// What to type into a browser on this machine.
    fn url(&self) -> String {
        match self.address.ip().is_unspecified() {
            true => format!("{}://localhost:{}", self.scheme(), self.address.port()),
            false => format!("{}://{}", self.scheme(), self.address),
        }
    }
}

impl Server {
    fn new(loaded: Loaded, desk: Desk, database: Database, site: Site) -> Server {
        Server {
            loaded: Arc::new(loaded),
            desk,
            database,
            metrics: Metrics::default(),
            site,
            writing: Mutex::default(),
            checksums: arena::Checksums::default(),
            stopping: watch::Sender::new(false),
        }
    }

    /// Waits until the server is to be stopped.
    async fn closing(&self) {
        // It can't be dropped before: it is ours.
        let _ = self.stopping.subscribe().wait_for(|stopping| *stopping).await;
    }
}

/// What is printed once the server can be reached.
#[derive(Serialize)]
struct Started {
    address: String,
    /// Logs its reader in, once.
    login: String,
    person: String,
}

impl Show for Started {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "minke serves {}", self.address)?;
        writeln!(out, "log in, once, as {}: {}", self.person, self.login)?;
        writeln!(out, "Ctrl-C ends.")
    }
}

/// Serves until Ctrl-C.
pub fn run(options: &Options) -> Result<()> {
    let Options { listen, tls, insecure, precision, kv, speculate, memory, person, chips, pace, json } = options;
    if !listen.ip().is_loopback() && tls.is_none() && !insecure {
        bail!(
            "{listen} can be reached from other machines, and without TLS anybody on the way could read along; give --cert \
             and --key, or say --insecure where something else encrypts"
        );
    }
    if let Some(name) = person.as_ref().filter(|name| !minke_lab::is_name(name)) {
        bail!("{name:?} can't be a person's name; give --person one of at most 60 characters");
    }
    let config = tls.as_ref().map(|(cert, key)| tls::config(cert, key)).transpose()?;
    let store = Store::open()?;
    // The lab's tables are there before those that refer to them.
    let desk = Desk::open(store.home(), &store.database(), *chips, *pace)?;
    let database = Database::open(&store.database())?;
    let cpu = Arc::new(load::cpu()?);
    let speculation = Speculation::load(speculate, &cpu, *precision)?;
    let memory = memory.unwrap_or_else(|| machine::memory().map_or(MEMORY, |bytes| bytes / 2));
    let busy = || format!("{listen} can't be listened on; choose another address with --listen");
    let listener = TcpListener::bind(listen).with_context(busy)?;
    listener.set_nonblocking(true).with_context(busy)?;
    let site = Site { address: listener.local_addr().with_context(busy)?, tls: config.is_some() };
    let name = person.clone().unwrap_or_else(user_name);
    let person = desk.person_named(&name)?;
    let (link, key) = database.now(|connection| {
        conversations::close_all(connection)?;
        arena::kept::close_all(connection)?;
        // Whoever found the key of an earlier server gets in no more.
        for key in keys(connection, person.id.0)?.iter().filter(|key| key.label == DOOR) {
            revoke(connection, person.id.0, key.id)?;
        }
        let link = issue(connection, Kind::Link, person.id.0, "", Some(LINK_DAYS))?;
        Ok((link, issue(connection, Kind::Key, person.id.0, DOOR, Some(DOOR_DAYS))?))
    })?;
    Door { address: site.url(), key }.open(&store)?;
    let started = Started { address: site.url(), login: format!("{}/login/{link}", site.url()), person: name };
    let loaded = Loaded::new(store, *precision, cpu, speculation, memory).with_kv(*kv);
    let shared = Arc::new(Server::new(loaded, desk, database, site));
    let interrupted = interrupt::flag()?;
    // For connections only; models run on threads of their own.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.context("the system refuses threads for the server")?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener).with_context(busy)?;
        print(&started, *json)?;
        match config {
            Some(config) => serve(tls::TlsListener::start(listener, config), &shared, &interrupted).await,
            // Tokens are small, and shall not wait for each other.
            None => {
                let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
                serve(listener, &shared, &interrupted).await
            }
        }
    })?;
    // A model that is being loaded is not waited for.
    runtime.shutdown_timeout(Duration::from_millis(100));
    Ok(())
}

/// Serves connections until the flag is set; then streams end with an error, replies under way are kept, and it returns.
async fn serve<L>(listener: L, shared: &Shared, interrupted: &AtomicBool) -> Result<()>
where
    L: Listener,
    L::Addr: std::fmt::Debug,
{
    let (stopped, router) = (Arc::clone(shared), router::router(shared));
    let served = axum::serve(listener, router).with_graceful_shutdown(async move { stopped.closing().await });
    let stop = async {
        while !interrupted.load(Ordering::Relaxed) {
            sleep(Duration::from_millis(50)).await;
        }
        shared.stopping.send_replace(true);
        sleep(PATIENCE).await;
    };
    tokio::select! {
        result = served.into_future() => result.context("connections can't be taken any more")?,
        () = stop => {}
    }
    let kept = async {
        while !chat::writing(shared).is_empty() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    // Whatever has not been kept by now can't be.
    let _ = timeout(PATIENCE, kept).await;
    Ok(())
}

/// What the operating system calls whoever runs this.
fn user_name() -> String {
    let names = ["USER", "LOGNAME", "USERNAME"].iter().filter_map(|name| std::env::var(name).ok());
    names.map(|name| name.trim().to_string()).find(|name| minke_lab::is_name(name)).unwrap_or_else(|| "me".into())
}
