//! What users see of errors: the API an object as OpenAI's, pages a page. Nothing else decides it.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use maud::html;
use serde_json::{Value, json};

use super::page;
use crate::terminal;

/// Why something was not done: one sentence, and what programs need to know of it.
#[derive(Clone, Debug)]
pub struct Failure {
    pub status: StatusCode,
    /// OpenAI's `type`.
    kind: &'static str,
    /// OpenAI's `code`.
    code: Option<&'static str>,
    /// The parameter at fault.
    param: Option<String>,
    message: String,
    /// Seconds after which it is worth another try.
    retry_after: Option<u32>,
}

impl Failure {
    fn new(status: StatusCode, kind: &'static str, code: Option<&'static str>, message: impl Into<String>) -> Failure {
        Failure { status, kind, code, param: None, message: message.into(), retry_after: None }
    }

    /// The request can't be understood, or asks for what is not done here.
    pub fn bad_request(message: impl Into<String>) -> Failure {
        Failure::new(StatusCode::BAD_REQUEST, "invalid_request_error", None, message)
    }

    /// A parameter of the request is at fault.
    pub fn parameter(name: &str, code: &'static str, message: impl Into<String>) -> Failure {
        Failure { param: Some(name.into()), code: Some(code), ..Failure::bad_request(message) }
    }

    /// Nobody said who they are.
    pub fn nobody(message: impl Into<String>) -> Failure {
        Failure::new(StatusCode::UNAUTHORIZED, "authentication_error", Some("invalid_api_key"), message)
    }

    /// It may come from somewhere else than our own pages.
    pub fn forged(message: impl Into<String>) -> Failure {
        Failure::new(StatusCode::FORBIDDEN, "permission_error", Some("forged"), message)
    }

    /// There is no such thing, or it is not this person's: which of the two is nobody's business.
    pub fn not_found(message: impl Into<String>) -> Failure {
        Failure::new(StatusCode::NOT_FOUND, "invalid_request_error", Some("not_found"), message)
    }

    /// There is no such model.
    pub fn no_model(name: &str) -> Failure {
        let message = format!("there is no model {name:?} here; GET /v1/models lists them");
        let failure = Failure::new(StatusCode::NOT_FOUND, "invalid_request_error", Some("model_not_found"), message);
        Failure { param: Some("model".into()), ..failure }
    }

    /// There is such a path, but not for this method.
    pub fn wrong_method() -> Failure {
        let message = "this address is not asked with this method";
        Failure::new(StatusCode::METHOD_NOT_ALLOWED, "invalid_request_error", None, message)
    }

    /// Something else goes on that must end first.
    pub fn conflict(message: impl Into<String>) -> Failure {
        Failure::new(StatusCode::CONFLICT, "invalid_request_error", Some("conflict"), message)
    }

    /// The body is larger than it may be.
    pub fn too_large(limit: usize) -> Failure {
        let message = format!("the request has more than {} kB; send less", limit >> 10);
        Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request_error", Some("too_large"), message)
    }

    /// Too many wait already.
    pub fn busy() -> Failure {
        let message = "too many requests wait for this model already; try again in a moment";
        let failure = Failure::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", Some("queue_full"), message);
        Failure { retry_after: Some(1), ..failure }
    }

    /// It can't be done now, but may be later.
    pub fn unavailable(message: impl Into<String>) -> Failure {
        let failure = Failure::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable_error", Some("unavailable"), message);
        Failure { retry_after: Some(5), ..failure }
    }

    /// Ctrl-C.
    pub fn closing() -> Failure {
        Failure::unavailable("the server is being stopped")
    }

    /// A fault of ours, or of a file: what it is goes to the terminal of whoever runs the server.
    pub fn internal(error: &anyhow::Error) -> Failure {
        terminal::say(&format!("minke: {error:#}"));
        let message = "the server could not do this; whoever runs it finds the reason in its terminal";
        Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", Some("internal"), message)
    }

    /// A fault of the model that is asked, which its users may know.
    pub fn model(error: &anyhow::Error) -> Failure {
        terminal::say(&format!("minke: {error:#}"));
        let message = format!("this model can't be used: {error:#}");
        Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", Some("model_failed"), message)
    }

    /// Whether it may go another way in a moment.
    pub fn is_passing(&self) -> bool {
        self.status == StatusCode::SERVICE_UNAVAILABLE
    }

    /// The object that the API gives, in a response or in the middle of a stream.
    pub fn object(&self) -> Value {
        let Failure { message, kind, param, code, .. } = self;
        json!({ "error": { "message": message, "type": kind, "param": param, "code": code } })
    }

    /// The response for programs.
    pub fn as_object(&self) -> Response {
        let body = (self.status, [(header::CONTENT_TYPE, "application/json")], self.object().to_string());
        self.with_headers(body.into_response())
    }

    /// The response for people.
    pub fn as_page(&self) -> Response {
        let title = self.status.canonical_reason().unwrap_or("Error");
        let body = html! {
            h1 { (title) }
            p { (self.message) }
            p { a href="/" { "To the start page" } }
        };
        self.with_headers((self.status, page::bare(title, &body)).into_response())
    }

    fn with_headers(&self, mut response: Response) -> Response {
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// The guard, which knows whether a route is for programs or people, writes the body.
impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.status;
        response.extensions_mut().insert(self);
        response
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Failure {
        Failure::internal(&error)
    }
}
