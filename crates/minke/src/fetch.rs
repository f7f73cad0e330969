//! One file from the network into a partial file beside its place, going on where an earlier attempt stopped.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use ureq::Agent;
use ureq::config::RedirectAuthHeaders;
use ureq::http::{HeaderMap, StatusCode};
use ureq::tls::{RootCerts, TlsConfig};

/// Time for a connection, for the first byte of a response, and between any two reads of its body.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a partial file is a part of; kept beside it.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Origin {
    url: String,
    /// What the server calls this version of the file: its entity tag, or else when it was last modified.
    version: Option<String>,
}

/// Downloads `url` into `partial`, asking with `token` if there is one; `progress` gets bytes so far and in all.
///
/// An earlier attempt's bytes are kept if the server still has the same version of the file (RFC 9110, section 13.1.5);
/// otherwise it starts anew. The file is synced and as long as the server said when this returns.
pub fn download(
    url: &str,
    token: Option<&str>,
    partial: &Path,
    mut progress: impl FnMut(u64, Option<u64>),
) -> Result<()> {
    let unwritable = || format!("{} can't be written", partial.display());
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(partial)
        .with_context(unwritable)?;
    if file.try_lock().is_err() {
        bail!("{} is being written by another minke; wait for it to end", partial.display());
    }
    let mut have = resumable(url, partial, &file)?;
    let agent = agent(url);
    let (status, headers, body) = get(&agent, url, token, have.as_ref())?;
    let mut total = length(&headers);
    match status {
        StatusCode::PARTIAL_CONTENT => {
            let (from, of) = content_range(&headers).context("the server's answer has no usable Content-Range")?;
            if have.as_ref().is_none_or(|(bytes, _)| *bytes != from) {
                bail!("the server sent another part of the file than it was asked for; delete {}", partial.display());
            }
            total = of;
        }
        StatusCode::OK => have = None,
        StatusCode::RANGE_NOT_SATISFIABLE => {
            // The part is as long as the whole, or the file has become shorter.
            let whole = content_range(&headers).and_then(|(_, of)| of);
            if have.as_ref().map(|(bytes, _)| *bytes) == whole && whole.is_some() {
                return file.sync_all().with_context(unwritable);
            }
            forget(partial);
            drop(file);
            bail!("the file has changed on the server; run the same command again to get it anew");
        }
        status => bail!("{url} gets the answer {status}; check the address"),
    }
    let start = have.map_or(0, |(bytes, _)| bytes);
    file.set_len(start).and_then(|()| file.seek(SeekFrom::Start(start))).with_context(unwritable)?;
    let origin = Origin { url: url.to_string(), version: version(&headers) };
    fs::write(origin_of(partial), serde_json::to_vec(&origin)?).with_context(unwritable)?;
    let got = copy(body, PATIENCE, &mut file, start, |bytes| progress(bytes, total))?;
    if total.is_some_and(|total| got != total) {
        let total = total.unwrap_or_default();
        bail!("the download stopped at {got} of {total} bytes; run the same command again to go on from there");
    }
    file.sync_all().with_context(unwritable)
}

/// A short answer that is kept in memory.
pub struct Page {
    pub status: u16,
    pub body: Vec<u8>,
    /// Where the page after this one is (RFC 8288).
    pub next: Option<String>,
}

/// Asks for a page of at most 16 MB.
pub fn page(url: &str, token: Option<&str>) -> Result<Page> {
    const LIMIT: u64 = 16 << 20;
    let agent = agent(url);
    let (status, headers, body) = get(&agent, url, token, None)?;
    let mut bytes = Vec::new();
    let failed = || format!("{url} breaks off; check the network");
    body.take(LIMIT + 1).read_to_end(&mut bytes).with_context(failed)?;
    if bytes.len() as u64 > LIMIT {
        bail!("{url} has more than {LIMIT} bytes, which is no list of files");
    }
    let link = header(&headers, "link").and_then(|links| links.split(',').find(|link| link.contains("rel=\"next\"")));
    let next = link.and_then(|link| Some(link.split_once('<')?.1.split_once('>')?.0.to_string()));
    Ok(Page { status: status.as_u16(), body: bytes, next })
}

/// Removes a partial file and what is known of it.
pub fn forget(partial: &Path) {
    // What can't be removed is found wanting next time.
    let _ = fs::remove_file(partial);
    let _ = fs::remove_file(origin_of(partial));
}

/// Removes what was known of a partial file that has become whole.
pub fn forget_origin(partial: &Path) {
    let _ = fs::remove_file(origin_of(partial));
}

/// Whether a file is known as a part of one, or not known yet to be whole.
pub fn is_partial(file: &Path) -> bool {
    origin_of(file).exists()
}

fn origin_of(partial: &Path) -> PathBuf {
    let mut name = partial.as_os_str().to_owned();
    name.push(".origin");
    name.into()
}

/// Bytes of the partial file that can be kept, and the version that they belong to.
fn resumable(url: &str, partial: &Path, file: &File) -> Result<Option<(u64, String)>> {
    let bytes = file.metadata()?.len();
    let origin = fs::read(origin_of(partial)).ok().and_then(|json| serde_json::from_slice::<Origin>(&json).ok());
    let version = origin.filter(|origin| origin.url == url).and_then(|origin| origin.version);
    Ok(version.filter(|_| bytes > 0).map(|version| (bytes, version)))
}

fn agent(url: &str) -> Agent {
    Agent::config_builder()
        // No redirect may leave HTTPS, unless the caller began without it.
        .https_only(!url.starts_with("http://"))
        .http_status_as_error(false)
        // The hub redirects within itself to what a token is needed for, and elsewhere to what carries its own.
        .redirect_auth_headers(RedirectAuthHeaders::SameHost)
        .timeout_connect(Some(PATIENCE))
        .timeout_recv_response(Some(PATIENCE))
        .user_agent(concat!("minke/", env!("CARGO_PKG_VERSION")))
        .tls_config(TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build())
        .build()
        .into()
}

fn get(
    agent: &Agent,
    url: &str,
    token: Option<&str>,
    have: Option<&(u64, String)>,
) -> Result<(StatusCode, HeaderMap, impl Read + Send + use<>)> {
    let mut request = agent.get(url).header("accept-encoding", "identity");
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    if let Some((bytes, version)) = have {
        request = request.header("range", format!("bytes={bytes}-")).header("if-range", version);
    }
    let failed = || format!("{url} can't be reached; check the address and the network");
    let (parts, body) = request.call().with_context(failed)?.into_parts();
    Ok((parts.status, parts.headers, body.into_reader()))
}

/// Copies until the end; returns the bytes that the file then has.
fn copy(
    mut from: impl Read + Send + 'static,
    patience: Duration,
    to: &mut File,
    start: u64,
    mut progress: impl FnMut(u64),
) -> Result<u64> {
    // A read can't be given up, so a thread does it that can be left behind.
    let (sender, receiver) = mpsc::sync_channel(4);
    thread::spawn(move || {
        loop {
            let mut buffer = vec![0; 1 << 18];
            let read = match from.read(&mut buffer) {
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                read => read,
            };
            let ends = !matches!(read, Ok(1..));
            let read = read.map(|n| {
                buffer.truncate(n);
                buffer
            });
            if sender.send(read).is_err() || ends {
                return;
            }
        }
    });
    let mut bytes = start;
    loop {
        match receiver.recv_timeout(patience) {
            Ok(Ok(read)) if read.is_empty() => return Ok(bytes),
            Ok(Ok(read)) => {
                to.write_all(&read).context("the download can't be written to disk")?;
                bytes += read.len() as u64;
                progress(bytes);
            }
            Ok(Err(e)) => return Err(interrupted(e, bytes)),
            Err(_) => {
                let silence = format!("nothing came for {} seconds", patience.as_secs());
                return Err(interrupted(io::Error::new(ErrorKind::TimedOut, silence), bytes));
            }
        }
    }
}

fn interrupted(error: io::Error, bytes: u64) -> anyhow::Error {
    // Not as an io error: only our own stdout counts as one that may break.
    anyhow::anyhow!(
        "the download broke off after {bytes} bytes ({error}); run the same command again to go on from there"
    )
}

fn header<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

fn length(headers: &HeaderMap) -> Option<u64> {
    header(headers, "content-length")?.parse().ok()
}

/// What identifies the file's version strongly enough to join parts of it.
fn version(headers: &HeaderMap) -> Option<String> {
    let tag = header(headers, "etag").filter(|tag| !tag.starts_with("W/"));
    tag.or_else(|| header(headers, "last-modified")).map(str::to_string)
}

/// First byte and whole length of `bytes FIRST-LAST/WHOLE` or `bytes */WHOLE`.
fn content_range(headers: &HeaderMap) -> Option<(u64, Option<u64>)> {
    let (range, whole) = header(headers, "content-range")?.strip_prefix("bytes ")?.split_once('/')?;
    let first = range.split_once('-').map_or(Some(0), |(first, _)| first.parse().ok())?;
    Some((first, whole.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_that_stalls_is_not_waited_for() {
        struct Stalling(bool);
        impl Read for Stalling {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                if std::mem::replace(&mut self.0, true) {
                    thread::sleep(Duration::from_secs(600));
                }
                buffer[..3].copy_from_slice(b"abc");
                Ok(3)
            }
        }
        let mut file = tempfile::tempfile().unwrap();
        let error = copy(Stalling(false), Duration::from_millis(50), &mut file, 7, |_| {}).unwrap_err().to_string();
        assert!(error.contains("broke off after 10 bytes (nothing came for 0 seconds)"), "{error}");
        assert_eq!(file.metadata().unwrap().len(), 3);
    }
}
