//! The one router: every route, who may ask for it, and how much it may be sent.

use axum::Extension;
use axum::Router;
use axum::handler::Handler;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{MethodRouter, get, post};

use super::error::Failure;
use super::guard::{Access, Rules, finish, guard};
use super::lab::api;
use super::{Shared, account, arena, assets, chat, completions, health, login, metrics, models, share};
use super::{attempts, cluster, ideas, inbox, rollouts, runs};

/// Most bytes of a form.
const FORM: usize = 64 << 10;
/// Most bytes of an idea that is tried from the browser, with its recipe.
const RECIPE: usize = 1 << 20;
/// Most bytes of a message to a model.
const MESSAGE: usize = 1 << 20;
/// Most bytes of a whole conversation.
const CONVERSATION: usize = 8 << 20;
/// Most bytes of an idea that is tried, with its code: base64 takes a third more.
const ATTEMPT: usize = 100 << 20;

/// A route.
pub struct Route {
    pub path: &'static str,
    pub rules: Rules,
    handler: MethodRouter<Shared>,
}

/// A route that shows something.
fn show<H: Handler<T, Shared>, T: 'static>(path: &'static str, access: Access, handler: H) -> Route {
    Route { path, rules: Rules { access, body: None }, handler: get(handler) }
}

/// A route that does something, with a body of at most so many bytes.
fn make<H: Handler<T, Shared>, T: 'static>(path: &'static str, access: Access, body: usize, handler: H) -> Route {
    Route { path, rules: Rules { access, body: Some(body) }, handler: post(handler) }
}

/// All routes.
pub fn routes() -> Vec<Route> {
    use Access::{Anybody, Person, Program};
    vec![
        make("/v1/chat/completions", Program, CONVERSATION, completions::complete),
        make("/chat/completions", Program, CONVERSATION, completions::complete),
        show("/v1/models", Program, models::list),
        show("/v1/models/{name}", Program, models::one),
        show("/health", Anybody, health::health),
        show("/metrics", Program, metrics::metrics),
        show("/static/{name}", Anybody, assets::asset),
        show("/login", Anybody, login::explain),
        show("/login/{link}", Anybody, login::offer),
        make("/login/{link}", Anybody, FORM, login::log_in),
        make("/logout", Person, FORM, login::log_out),
        show("/account", Person, account::show),
        make("/account/device", Person, FORM, account::new_device),
        make("/account/invite", Person, FORM, account::invite),
        make("/account/keys", Person, FORM, account::new_key),
        make("/account/keys/{key}/delete", Person, FORM, account::delete_key),
        make("/account/interests", Person, FORM, account::introduce),
        show("/", Person, chat::start),
        show("/chat", Person, chat::new),
        make("/chat", Person, FORM, chat::create),
        show("/chat/{conversation}", Person, chat::show),
        make("/chat/{conversation}/say", Person, MESSAGE, chat::say),
        make("/chat/{conversation}/stop", Person, FORM, chat::stop),
        make("/chat/{conversation}/delete", Person, FORM, chat::delete),
        make("/chat/{conversation}/share", Person, FORM, share::make),
        make("/chat/{conversation}/unshare", Person, FORM, share::revoke),
        show("/share/{token}", Anybody, share::show),
        show("/ideas", Person, ideas::list),
        make("/ideas", Person, RECIPE, attempts::make),
        show("/ideas/{idea}", Person, ideas::show),
        make("/ideas/{idea}/join", Person, FORM, ideas::join),
        make("/ideas/{idea}/invite", Person, FORM, ideas::invite),
        make("/ideas/{idea}/merge", Person, FORM, ideas::merge),
        make("/ideas/{idea}/leave", Person, FORM, ideas::leave),
        make("/ideas/{idea}/park", Person, FORM, ideas::park),
        make("/advice/{advice}", Person, FORM, attempts::choose),
        show("/runs", Person, runs::list),
        show("/runs/{run}", Person, runs::show),
        show("/runs/{run}/rollouts", Person, rollouts::show),
        make("/runs/{run}/stop", Person, FORM, runs::stop),
        show("/cluster", Person, cluster::show),
        show("/inbox", Person, inbox::show),
        make("/inbox/{question}", Person, FORM, inbox::answer),
        make("/inbox/{question}/withdraw", Person, FORM, inbox::withdraw),
        show("/arena", Person, arena::board::show),
        show("/arena/model", Person, arena::model::show),
        show("/arena/battle", Person, arena::battle::new),
        make("/arena/battle", Person, MESSAGE, arena::battle::start),
        show("/arena/battle/{battle}", Person, arena::battle::show),
        make("/arena/battle/{battle}/vote", Person, FORM, arena::battle::vote),
        make("/api/try", Program, ATTEMPT, api::try_idea),
        make("/api/advice/{advice}", Program, FORM, api::choose),
        show("/api/ideas", Program, api::ideas),
        show("/api/ideas/{idea}", Program, api::idea),
        make("/api/ideas/{idea}/ask", Program, FORM, api::ask),
        make("/api/ideas/{idea}/leave", Program, FORM, api::leave),
        make("/api/ideas/{idea}/park", Program, FORM, api::park),
        show("/api/inbox", Program, api::inbox),
        make("/api/inbox/{question}", Program, FORM, api::reply),
        make("/api/inbox/{question}/withdraw", Program, FORM, api::withdraw),
        show("/api/runs", Program, api::runs),
        show("/api/runs/{run}", Program, api::run),
        show("/api/runs/{run}/log", Program, api::log),
        make("/api/runs/{run}/stop", Program, FORM, api::stop),
        show("/api/people", Program, api::people),
        show("/api/worth", Program, api::worth),
    ]
}

/// The routes, each behind the guard.
pub fn router(shared: &Shared) -> Router {
    let mut router = Router::new();
    for Route { path, rules, handler } in routes() {
        let guarded = handler.route_layer(from_fn_with_state(shared.clone(), guard)).route_layer(Extension(rules));
        router = router.route(path, guarded);
    }
    router
        .fallback(|| async { Failure::not_found("there is nothing at this address") })
        .method_not_allowed_fallback(|| async { Failure::wrong_method() })
        .layer(from_fn(finish))
        .with_state(shared.clone())
}

#[cfg(test)]
mod tests;
