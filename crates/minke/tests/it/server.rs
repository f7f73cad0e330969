//! A web server for one file or several, with the misfortunes that downloads meet.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// What is served, and how.
#[derive(Clone, Default)]
pub struct Served {
    pub bytes: Vec<u8>,
    /// The entity tag; none is sent if it is empty.
    pub tag: &'static str,
    /// Close the connection after this many bytes of a body.
    pub break_after: Option<usize>,
    /// Answer with this status and no body.
    pub status: Option<u16>,
    /// Send whoever asks for anything but this path there.
    pub redirect_to: Option<&'static str>,
    /// Other bodies by their paths; there is nothing else then.
    pub files: Vec<(&'static str, Vec<u8>)>,
    /// Answer with 401 whoever does not send this.
    pub authorization: Option<&'static str>,
}

/// A server on a port of its own, until the process ends.
pub struct Server {
    port: u16,
    served: Arc<Mutex<Served>>,
    log: Arc<Mutex<Vec<String>>>,
}

impl Server {
    pub fn new(served: Served) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (served, log) = (Arc::new(Mutex::new(served)), Arc::new(Mutex::new(Vec::new())));
        let server = Server { port, served: Arc::clone(&served), log: Arc::clone(&log) };
        thread::spawn(move || {
            for connection in listener.incoming() {
                let served = served.lock().unwrap().clone();
                // A client that has gone away is one of the misfortunes.
                let _ = answer(connection.unwrap(), &served, &log);
            }
        });
        server
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.port)
    }

    /// Changes what is served from now on.
    pub fn change(&self, change: impl FnOnce(&mut Served)) {
        change(&mut self.served.lock().unwrap());
    }

    /// Requests since the last call: the path, and the range if one was asked for.
    pub fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.log.lock().unwrap())
    }
}

fn answer(mut connection: TcpStream, served: &Served, log: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut lines = BufReader::new(connection.try_clone()?).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    let path = first.split(' ').nth(1).unwrap_or_default().to_string();
    let (mut start, mut if_range, mut authorization) = (None, None, None);
    for line in lines {
        let line = line?;
        match line.split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("range") => {
                let first = value.strip_prefix("bytes=").and_then(|range| range.strip_suffix('-'));
                start = first.and_then(|first| first.parse::<usize>().ok());
            }
            Some((name, value)) if name.eq_ignore_ascii_case("if-range") => if_range = Some(value.to_string()),
            Some((name, value)) if name.eq_ignore_ascii_case("authorization") => {
                authorization = Some(value.to_string())
            }
            _ if line.is_empty() => break,
            _ => {}
        }
    }
    log.lock().unwrap().push(match start {
        Some(start) => format!("{path} from {start}"),
        None => path.clone(),
    });
    if let Some(to) = served.redirect_to.filter(|to| *to != path) {
        return write!(
            connection,
            "HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        );
    }
    let file = served.files.iter().find(|(name, _)| *name == path);
    let status = match served.authorization {
        Some(expected) if authorization.as_deref() != Some(expected) => Some(401),
        _ if !served.files.is_empty() && file.is_none() => Some(404),
        _ => served.status,
    };
    let bytes = file.map_or(&served.bytes, |(_, bytes)| bytes);
    if let Some(status) = status {
        return write!(connection, "HTTP/1.1 {status} No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    }
    let whole = bytes.len();
    let start = start.filter(|_| if_range.is_none_or(|tag| tag == served.tag));
    let tag = if served.tag.is_empty() { String::new() } else { format!("etag: {}\r\n", served.tag) };
    let (status, range, body) = match start {
        Some(start) if start >= whole => {
            ("416 Range Not Satisfiable", format!("content-range: bytes */{whole}\r\n"), &[][..])
        }
        Some(start) => {
            ("206 Partial Content", format!("content-range: bytes {start}-{}/{whole}\r\n", whole - 1), &bytes[start..])
        }
        None => ("200 OK", String::new(), &bytes[..]),
    };
    write!(connection, "HTTP/1.1 {status}\r\ncontent-length: {}\r\n{range}{tag}connection: close\r\n\r\n", body.len())?;
    connection.write_all(&body[..served.break_after.unwrap_or(body.len()).min(body.len())])
}
