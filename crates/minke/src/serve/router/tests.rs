//! Every route, as strangers, other people and forgers meet it. The routes are the router's own, so that none is forgotten.

mod table;

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::http::{Request, Response, StatusCode, header};
use minke_kernels::{Cpu, Dtype};
use minke_lab::policy::Pace;
use serde_json::Value;
use tower::ServiceExt;

use super::*;
use crate::serve::arena::kept;
use crate::serve::conversations;
use crate::serve::credentials::{Kind, csrf, issue};
use crate::serve::database::tests::database;
use crate::serve::lab::Desk;
use crate::serve::loaded::Loaded;
use crate::serve::{Server, Site};
use crate::speculate::Speculation;
use crate::store::Store;

const HOST: &str = "127.0.0.1:7373";
const ORIGIN: &str = "http://127.0.0.1:7373";

/// A server with two people, each with a session, a key and a conversation that is shared.
struct Town {
    _directory: tempfile::TempDir,
    router: Router,
    shared: Shared,
    ada: Citizen,
    bob: Citizen,
}

struct Citizen {
    session: String,
    key: String,
    key_id: i64,
    conversation: i64,
    token: String,
    battle: String,
}

impl Town {
    fn new() -> Town {
        let (directory, database) = database();
        let desk =
            Desk::open(directory.path(), &directory.path().join("home/lab.db"), Some(1), Pace::default()).unwrap();
        let citizen = |name: &str| {
            let person = desk.person_named(name).unwrap().id.0;
            database.now(|c| {
                let key = issue(c, Kind::Key, person, name, None)?;
                let conversation = conversations::create(c, person)?;
                let sides = [("one".to_string(), 1), ("another".to_string(), 2)];
                conversations::share(c, person, conversation)?;
                Ok(Citizen {
                    session: issue(c, Kind::Session, person, "", Some(1))?,
                    key,
                    key_id: crate::serve::credentials::keys(c, person)?[0].id,
                    conversation,
                    token: conversations::share_of(c, person, conversation)?.unwrap(),
                    battle: kept::begin(c, person, "1+1=", &sides)?,
                })
            })
        };
        let (ada, bob) = (citizen("ada").unwrap(), citizen("bob").unwrap());
        let site = Site { address: HOST.parse().unwrap(), tls: false };
        let store = Store::at(directory.path());
        let loaded =
            Loaded::new(store, Dtype::F32.into(), Arc::new(Cpu::detect().unwrap()), Speculation::Lookup, 1 << 30);
        let shared = Arc::new(Server::new(loaded, desk, database, site));
        Town { _directory: directory, router: router(&shared), shared, ada, bob }
    }

    /// A route's path for something of Ada's.
    fn path(&self, route: &Route) -> String {
        let path = route.path.replace("{conversation}", &self.ada.conversation.to_string());
        let path = path.replace("{key}", &self.ada.key_id.to_string()).replace("{token}", &self.ada.token);
        let path = path.replace("{battle}", &self.ada.battle);
        let numbers = ["{idea}", "{run}", "{advice}", "{question}"];
        let path = numbers.iter().fold(path, |path, number| path.replace(number, "1"));
        path.replace("{link}", "no-link").replace("{name}", "app.css")
    }

    async fn ask(&self, request: Request<Body>) -> Response<Body> {
        self.router.clone().oneshot(request).await.unwrap()
    }
}

/// A request for a route, from our own page but by nobody.
fn plain(route: &Route, path: &str) -> axum::http::request::Builder {
    let request = Request::builder().uri(path).header(header::HOST, HOST);
    match route.rules.body {
        None => request,
        Some(_) => request.method("POST").header(header::ORIGIN, ORIGIN),
    }
}

fn cookie(session: &str) -> String {
    format!("other=1; minke-7373={session}")
}

fn empty(request: axum::http::request::Builder) -> Request<Body> {
    request.body(Body::empty()).unwrap()
}

async fn text(response: Response<Body>) -> String {
    String::from_utf8(to_bytes(response.into_body(), 1 << 20).await.unwrap().to_vec()).unwrap()
}

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

#[test]
fn strangers_see_what_is_for_anybody_and_nothing_else() {
    run(async {
        let town = Town::new();
        let mut open = Vec::new();
        for route in routes() {
            let path = town.path(&route);
            for key in [None, Some("Bearer nobody's"), Some("Basic YTpi")] {
                let mut request = plain(&route, &path).header(header::COOKIE, cookie("nobody's"));
                if let Some(key) = key {
                    request = request.header(header::AUTHORIZATION, key);
                }
                let response = town.ask(empty(request)).await;
                let to_login = response.headers().get(header::LOCATION).is_some_and(|to| to == "/login");
                let refused = response.status() == StatusCode::UNAUTHORIZED || to_login;
                assert_eq!(refused, route.rules.access != Access::Anybody, "{path}: {}", response.status());
            }
            if route.rules.access == Access::Anybody {
                open.push(route.path);
            }
        }
        assert_eq!(open, ["/health", "/static/{name}", "/login", "/login/{link}", "/login/{link}", "/share/{token}"]);
    });
}

#[test]
fn nobody_gets_at_what_is_anothers() {
    run(async {
        let town = Town::new();
        let mut tried = 0;
        let theirs = ["{conversation}", "{key}", "{battle}"];
        for route in routes().iter().filter(|route| theirs.iter().any(|thing| route.path.contains(thing))) {
            let path = town.path(route);
            let bob = |token: &str| {
                let request = plain(route, &path).header(header::COOKIE, cookie(&town.bob.session));
                let say = r#"{"text":"hi","model":"m","think":true}"#;
                request.header("x-csrf-token", token).body(Body::from(say)).unwrap()
            };
            let response = town.ask(bob(&csrf(&town.bob.session))).await;
            assert_eq!(response.status(), StatusCode::NOT_FOUND, "{path}");
            // Her token is of no use to him either.
            if route.rules.body.is_some() {
                assert_eq!(town.ask(bob(&csrf(&town.ada.session))).await.status(), StatusCode::FORBIDDEN, "{path}");
            }
            // A key of hers calls the API, and does not open pages.
            let with_key = plain(route, &path).header(header::AUTHORIZATION, format!("Bearer {}", town.ada.key));
            let response = town.ask(empty(with_key)).await;
            assert!([StatusCode::UNAUTHORIZED, StatusCode::SEE_OTHER].contains(&response.status()), "{path}");
            tried += 1;
        }
        assert_eq!(tried, 9);
        let left = town.shared.database.now(|c| {
            let (mine, key) = (town.ada.conversation, town.ada.key_id);
            let conversation: bool =
                c.query_row("SELECT EXISTS (SELECT 1 FROM conversation WHERE id = ?1)", [mine], |row| row.get(0))?;
            let key: bool =
                c.query_row("SELECT EXISTS (SELECT 1 FROM credential WHERE id = ?1)", [key], |row| row.get(0))?;
            Ok((
                conversation,
                key,
                conversations::shared(c, &town.ada.token)?.is_some(),
                conversations::turns(c, mine)?,
            ))
        });
        assert_eq!(left.unwrap(), (true, true, true, Vec::new()));
    });
}

#[test]
fn whoever_is_logged_in_sees_every_area() {
    run(async {
        let town = Town::new();
        let pages = routes()
            .into_iter()
            .filter(|route| route.rules.access == Access::Person && route.rules.body.is_none() && route.path != "/");
        let mut seen = Vec::new();
        for route in pages {
            let path = town.path(&route);
            let request = plain(&route, &path).header(header::COOKIE, cookie(&town.ada.session));
            let response = town.ask(empty(request.header(header::ACCEPT, "text/html"))).await;
            let expected = match route.path {
                // There are no ideas and no runs yet.
                path if ["{idea}", "{run}"].iter().any(|number| path.contains(number)) => StatusCode::NOT_FOUND,
                // It has to be said which.
                "/arena/model" => StatusCode::BAD_REQUEST,
                _ => StatusCode::OK,
            };
            assert_eq!(response.status(), expected, "{path}");
            let page = text(response).await;
            if expected == StatusCode::OK {
                let is_area = !route.path.contains('{') && route.path != "/arena/battle";
                assert!(!is_area || page.contains(&format!("href=\"{path}\"")), "{path} is not linked");
                seen.push(route.path);
            }
        }
        assert!(
            ["/ideas", "/runs", "/cluster", "/inbox", "/arena", "/account"].iter().all(|path| seen.contains(path)),
            "{seen:?}"
        );
    });
}

#[test]
fn forged_requests_change_nothing() {
    run(async {
        let town = Town::new();
        let token = csrf(&town.ada.session);
        let foreign = [
            (header::ORIGIN.as_str(), "http://evil.example"),
            (header::ORIGIN.as_str(), "https://127.0.0.1:7373"),
            (header::ORIGIN.as_str(), "null"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
        ];
        for route in routes().iter().filter(|route| route.rules.body.is_some()) {
            let path = town.path(route);
            let status = async |request: axum::http::request::Builder, body: &str| {
                town.ask(request.body(Body::from(body.to_string())).unwrap()).await.status()
            };
            let form = |origin: &str| {
                let request = Request::builder().method("POST").uri(&path).header(header::HOST, HOST);
                let request = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
                let request = request.header(header::COOKIE, cookie(&town.ada.session));
                if origin.is_empty() { request } else { request.header(header::ORIGIN, origin) }
            };
            let body = format!("csrf={token}");
            for (name, value) in foreign {
                let request = if name == "origin" { form(value) } else { form(ORIGIN).header(name, value) };
                assert_eq!(status(request, &body).await, StatusCode::FORBIDDEN, "{path} from {name}: {value}");
            }
            assert_eq!(status(form(""), &body).await, StatusCode::FORBIDDEN, "{path} from nowhere");
            if route.rules.access == Access::Anybody {
                continue;
            }
            for body in ["", "csrf=", "csrf=0", &format!("csrf={}", csrf("another"))] {
                assert_eq!(status(form(ORIGIN), body).await, StatusCode::FORBIDDEN, "{path} with {body:?}");
            }
            // Not a form, so its fields do not count.
            let script = plain(route, &path).header(header::COOKIE, cookie(&town.ada.session));
            assert_eq!(status(script, &body).await, StatusCode::FORBIDDEN, "{path} without a header");
        }
        // The same with everything right does something: the refusals above are for what they say.
        let path = format!("/chat/{}/unshare", town.ada.conversation);
        for (origin, site) in [(Some(ORIGIN), None), (Some("null"), Some("same-origin")), (None, Some("same-origin"))] {
            let mut request = Request::builder().method("POST").uri(&path).header(header::HOST, HOST);
            request = request.header(header::COOKIE, cookie(&town.ada.session)).header("x-csrf-token", &token);
            for (name, value) in [("origin", origin), ("sec-fetch-site", site)] {
                if let Some(value) = value {
                    request = request.header(name, value);
                }
            }
            assert_eq!(town.ask(empty(request)).await.status(), StatusCode::SEE_OTHER, "{origin:?} {site:?}");
        }
    });
}

#[test]
fn every_response_has_careful_headers_and_other_hosts_are_refused() {
    run(async {
        let town = Town::new();
        for route in routes() {
            let path = town.path(&route);
            let response = town.ask(empty(plain(&route, &path))).await;
            let header = |name: &str| response.headers().get(name).map_or("", |value| value.to_str().unwrap());
            assert!(header("content-security-policy").starts_with("default-src 'none'; script-src 'self'"), "{path}");
            assert_eq!(
                (header("x-content-type-options"), header("referrer-policy")),
                ("nosniff", "no-referrer"),
                "{path}"
            );
            for host in ["evil.example:7373", "127.0.0.1", "127.0.0.1:80", "localhost.evil.example:7373", ""] {
                let request = Request::builder().uri(&path).header(header::HOST, host);
                let request = if route.rules.body.is_some() { request.method("POST") } else { request };
                assert_eq!(town.ask(empty(request)).await.status(), StatusCode::FORBIDDEN, "{path} of {host}");
            }
        }
        for host in ["localhost:7373", "127.0.0.1:7373", "[::1]:7373"] {
            let request = Request::builder().uri("/health").header(header::HOST, host);
            assert_eq!(town.ask(empty(request)).await.status(), StatusCode::OK, "{host}");
        }
    });
}

#[test]
fn failures_are_objects_for_programs_and_pages_for_people() {
    run(async {
        let town = Town::new();
        for (path, method, status) in [
            ("/v1/models", "GET", StatusCode::UNAUTHORIZED),
            ("/no/such/place", "GET", StatusCode::NOT_FOUND),
            ("/login", "DELETE", StatusCode::METHOD_NOT_ALLOWED),
            ("/share/nothing", "GET", StatusCode::NOT_FOUND),
        ] {
            let request = || Request::builder().method(method).uri(path).header(header::HOST, HOST);
            let response = town.ask(empty(request())).await;
            assert_eq!(response.status(), status, "{path}");
            let object: Value = serde_json::from_str(&text(response).await).unwrap();
            assert!(object["error"]["message"].is_string() && object["error"]["type"].is_string(), "{path}: {object}");
            let response = town.ask(empty(request().header(header::ACCEPT, "text/html,*/*;q=0.8"))).await;
            assert_eq!(response.status(), status, "{path}");
            assert!(text(response).await.starts_with("<!DOCTYPE html>"), "{path}");
        }
        let route = &routes()[0];
        let body = vec![b' '; route.rules.body.unwrap() + 1];
        let request = plain(route, route.path).header(header::AUTHORIZATION, format!("Bearer {}", town.ada.key));
        let response = town.ask(request.body(Body::from(body)).unwrap()).await;
        assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    });
}
