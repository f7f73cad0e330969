//! What stands before every route: who asks, whether the request comes from our own pages, and how much it may send. And
//! what stands behind all of them: headers that keep browsers careful, and the words for failures.

use axum::Extension;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::{self, HeaderName};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};

use super::credentials::{Kind, Person, csrf, equal, owner};
use super::error::Failure;
use super::{Shared, Site};

/// Who may ask for a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Anybody.
    Anybody,
    /// People who are logged in.
    Person,
    /// Programs with a key, and people who are logged in.
    Program,
}

/// What the guard was told of a route.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    pub access: Access,
    /// Most bytes of the body of a route that does something; none of one that only shows something.
    pub body: Option<usize>,
}

/// Who asks; routes that not anybody may ask for find it among the request's extensions.
#[derive(Clone, Debug)]
pub struct Visitor {
    pub person: Person,
    /// The secret of the cookie; empty where a key was shown.
    pub session: String,
    /// What the session's forms carry.
    pub csrf: String,
    /// How many questions wait for their answer, where they are logged in.
    pub asked: usize,
}

/// Headers of every response.
const HEADERS: [(HeaderName, &str); 4] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; form-action 'self'; \
         frame-ancestors 'none'; base-uri 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
];

/// Lets a request through to its route, or not.
pub async fn guard(
    State(shared): State<Shared>,
    Extension(rules): Extension<Rules>,
    mut request: Request,
    next: Next,
) -> Result<Response, Failure> {
    if !is_our_host(request.headers(), &shared.site) {
        return Err(Failure::forged("this server is asked by its own address only, as 127.0.0.1 or localhost"));
    }
    let key = bearer(request.headers());
    let visitor = match (rules.access, &key) {
        (Access::Anybody, _) => None,
        (Access::Program, Some(key)) => Some(with_key(&shared, key).await?),
        (Access::Program | Access::Person, _) => match with_session(&shared, request.headers()).await? {
            Some(visitor) => Some(visitor),
            None if rules.access == Access::Person && rules.body.is_none() => {
                return Ok(Redirect::to("/login").into_response());
            }
            None if rules.access == Access::Person => {
                return Err(Failure::nobody("log in first, and then do it again"));
            }
            None => return Err(Failure::nobody("give an API key as \"Authorization: Bearer KEY\"")),
        },
    };
    if let Some(limit) = rules.body {
        let body = to_bytes(std::mem::take(request.body_mut()), limit).await;
        let body = body.map_err(|_| Failure::too_large(limit))?;
        // A browser never adds a key by itself, so a request with one is nobody's forgery.
        let has_key = rules.access == Access::Program && key.is_some();
        if !has_key && !is_our_page(request.headers(), &shared.site) {
            return Err(Failure::forged("this can be done from this server's own pages only"));
        }
        let forged = visitor.as_ref().is_some_and(|visitor| !has_key && !has_token(&request, &body, &visitor.csrf));
        if forged {
            return Err(Failure::forged("this page is out of date; load it again, and then do it again"));
        }
        *request.body_mut() = Body::from(body);
    }
    if let Some(visitor) = visitor {
        request.extensions_mut().insert(visitor);
    }
    Ok(next.run(request).await)
}

/// Puts failures in words, for whoever asked, and headers on everything.
pub async fn finish(request: Request, next: Next) -> Response {
    let is_static = request.uri().path().starts_with("/static/");
    // Browsers ask for pages so; scripts and programs do not.
    let accept = request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let wants_page = accept.contains("text/html");
    let mut response = next.run(request).await;
    if let Some(failure) = response.extensions_mut().remove::<Failure>() {
        response = if wants_page { failure.as_page() } else { failure.as_object() };
    }
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    let cache = if is_static && response.status() == StatusCode::OK { "max-age=600" } else { "no-store" };
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    response
}

/// The name of the session's cookie. Cookies do not tell ports apart, and servers should not log each other out.
pub fn cookie_name(site: &Site) -> String {
    format!("minke-{}", site.address.port())
}

/// The session's secret, if the request has one.
pub fn session(headers: &HeaderMap, site: &Site) -> Option<String> {
    let name = cookie_name(site);
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|cookies| cookies.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| value.to_string())
}

fn bearer(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().unwrap_or_default();
    let (scheme, key) = value.split_once(' ').unwrap_or((value, ""));
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim().to_string())
}

async fn with_key(shared: &Shared, key: &str) -> Result<Visitor, Failure> {
    let secret = key.to_string();
    let person = shared.database.with(move |c| owner(c, Kind::Key, &secret)).await?;
    let person =
        person.ok_or_else(|| Failure::nobody("this API key is not known here; make one on the account page"))?;
    Ok(Visitor { person, session: String::new(), csrf: String::new(), asked: 0 })
}

async fn with_session(shared: &Shared, headers: &HeaderMap) -> Result<Option<Visitor>, Failure> {
    let Some(session) = session(headers, &shared.site) else { return Ok(None) };
    let secret = session.clone();
    let person = shared.database.with(move |c| owner(c, Kind::Session, &secret)).await?;
    let Some(person) = person else { return Ok(None) };
    let asked = shared.desk.questions_to(person.id).await?;
    Ok(Some(Visitor { person, csrf: csrf(&session), session, asked }))
}

/// Whether a request on the loopback interface names it: a page elsewhere could have its own name point there (DNS
/// rebinding), and would then be of our origin.
fn is_our_host(headers: &HeaderMap, site: &Site) -> bool {
    if !site.address.ip().is_loopback() {
        return true;
    }
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, port.parse().ok()),
        _ => (host, Some(if site.tls { 443 } else { 80 })),
    };
    let ip = site.address.ip().to_string();
    port == Some(site.address.port()) && (["localhost", "127.0.0.1", "[::1]"].contains(&name) || name == ip)
}

/// Whether a request that changes something was made by one of our own pages, by what browsers say of it.
fn is_our_page(headers: &HeaderMap, site: &Site) -> bool {
    let text = |name: &HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let from_here = text(&HeaderName::from_static("sec-fetch-site")).map(|from| from == "same-origin");
    let origin = format!("{}://{}", site.scheme(), text(&header::HOST).unwrap_or_default());
    match (text(&header::ORIGIN), from_here) {
        (_, Some(false)) => false,
        // Without referrers a form's origin is "null", whoever's it is.
        (Some("null") | None, Some(true)) => true,
        // Browsers say where a request is from only over TLS and to this machine; the form's token has to do.
        (Some("null"), None) => !site.tls && !site.address.ip().is_loopback(),
        (Some(named), _) => named == origin,
        (None, None) => false,
    }
}

/// Whether a script's header or a form's field carries the session's token.
fn has_token(request: &Request, body: &Bytes, csrf: &str) -> bool {
    let header = request.headers().get("x-csrf-token").and_then(|value| value.to_str().ok());
    let is_form = request
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/x-www-form-urlencoded"));
    let given = header.map(str::to_string).or_else(|| is_form.then(|| field(body, "csrf")).flatten());
    given.is_some_and(|given| equal(&given, csrf))
}

/// A form's field.
pub fn field(body: &[u8], name: &str) -> Option<String> {
    form_urlencoded::parse(body).find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}
