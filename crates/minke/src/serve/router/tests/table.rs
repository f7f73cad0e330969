//! The table of `docs/routes.md`: what every route says to those whom it is not for.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use super::*;

const HEAD: &str =
    "| route | for | a stranger | another's session | another's key | a forged form |\n|---|---|---|---|---|---|\n";

/// What the chat page's script would send; other routes make nothing of it.
const SAID: &str = r#"{"text":"hi","model":"m","think":true}"#;

/// What a response comes to for whoever asked.
fn word(response: &Response<Body>) -> String {
    match response.status() {
        StatusCode::SEE_OTHER if response.headers().get(header::LOCATION).is_some_and(|to| to == "/login") => {
            "to the login page".into()
        }
        status => status.as_u16().to_string(),
    }
}

/// The row of a route that belongs to Ada, where a path says whose it is.
async fn row(town: &Town, route: &Route) -> String {
    let path = town.path(route);
    let body = route.rules.body.is_some();
    let ask = async |request| word(&town.ask(empty(request)).await);
    let session = plain(route, &path).header(header::COOKIE, cookie(&town.bob.session));
    let session = session.header("x-csrf-token", csrf(&town.bob.session));
    let key = plain(route, &path).header(header::AUTHORIZATION, format!("Bearer {}", town.bob.key));
    let forged = Request::builder().method("POST").uri(&path).header(header::HOST, HOST);
    let forged = forged.header(header::COOKIE, cookie(&town.ada.session)).header(header::ORIGIN, "http://evil.example");
    let access = match route.rules.access {
        Access::Anybody => "anybody",
        Access::Person => "whoever is logged in",
        Access::Program => "whoever is logged in, or has a key",
    };
    // What everybody may see or do is not tried: there is nothing to be kept from.
    let own = ["{conversation}", "{key}", "{battle}"].iter().any(|thing| route.path.contains(thing));
    format!(
        "| `{} {}` | {access} | {} | {} | {} | {} |\n",
        if body { "POST" } else { "GET" },
        route.path,
        if route.rules.access == Access::Anybody { "–".into() } else { ask(plain(route, &path)).await },
        if own { word(&town.ask(session.body(Body::from(SAID)).unwrap()).await) } else { "–".into() },
        if route.rules.access == Access::Person { ask(key).await } else { "–".into() },
        if body { ask(forged).await } else { "–".into() },
    )
}

#[test]
fn the_table_says_what_every_route_says() {
    run(async {
        let mut table = String::from(HEAD);
        for route in routes() {
            // A town for each, as what one route does is of no concern to the next.
            let town = Town::new();
            table.write_str(&row(&town, &route).await).unwrap();
        }
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/routes.md");
        let page = fs::read_to_string(&path).unwrap();
        let (text, old) = page.split_at(page.find(HEAD).expect("the page has a table"));
        if std::env::var_os("MINKE_BLESS").is_some() {
            fs::write(&path, format!("{text}{table}")).unwrap();
            return;
        }
        for (new, old) in table.lines().zip(old.lines()) {
            assert_eq!(new, old, "run with MINKE_BLESS=1 if that is as it should be");
        }
        assert_eq!(table.lines().count(), old.lines().count(), "run with MINKE_BLESS=1 for new routes");
    });
}
