//! What all pages look like: one layout with navigation, and one without for those who are not logged in.

use maud::{DOCTYPE, Markup, html};

use super::guard::Visitor;

/// The areas of the lab in the navigation's order, with their paths. A new area has a line here.
const AREAS: [(&str, &str); 6] = [
    ("Chat", "/chat"),
    ("Ideas", "/ideas"),
    ("Runs", "/runs"),
    ("Cluster", "/cluster"),
    ("Inbox", "/inbox"),
    ("Arena", "/arena"),
];

/// A page for somebody who is logged in; `area` is the path of the area that it belongs to.
pub fn full(visitor: &Visitor, area: &str, title: &str, scripts: &[&str], body: &Markup) -> Markup {
    let current = |path: &str| (path == area).then_some("page");
    let header = html! {
        header.top {
            a.skip href="#main" { "Skip to the content" }
            a.brand href="/" { img src="/static/icon.svg" alt="" width="28" height="28"; span { "minke" } }
            nav aria-label="Areas" {
                @for (name, path) in AREAS {
                    a href=(path) aria-current=[current(path)] {
                        (name)
                        @if path == "/inbox" && visitor.asked > 0 {
                            " " span.count title="questions that wait for your answer" { (visitor.asked) }
                        }
                    }
                }
            }
            a.account href="/account" aria-current=[current("/account")] { (visitor.person.name) }
        }
    };
    document(title, Some(&visitor.csrf), scripts, &html! { (header) (body) })
}

/// A page for anybody, with `body` in its middle.
pub fn bare(title: &str, body: &Markup) -> Markup {
    let header = html! {
        header.top { span.brand { img src="/static/icon.svg" alt="" width="28" height="28"; span { "minke" } } }
    };
    document(title, None, &[], &html! { (header) main.narrow id="main" { (body) } })
}

/// A page for anybody with scripts.
pub fn public(title: &str, scripts: &[&str], body: &Markup) -> Markup {
    let header = html! {
        header.top { span.brand { img src="/static/icon.svg" alt="" width="28" height="28"; span { "minke" } } }
    };
    document(title, None, scripts, &html! { (header) (body) })
}

fn document(title: &str, csrf: Option<&str>, scripts: &[&str], body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1, interactive-widget=resizes-content";
                meta name="color-scheme" content="light dark";
                @if let Some(csrf) = csrf { meta name="csrf" content=(csrf); }
                title { (title) " · minke" }
                link rel="icon" href="/static/icon.svg" type="image/svg+xml";
                link rel="stylesheet" href="/static/app.css";
                @for script in scripts { script src={ "/static/" (script) } defer {} }
            }
            body { (body) }
        }
    }
}

/// The field that makes a form this session's.
pub fn csrf_field(visitor: &Visitor) -> Markup {
    html! { input type="hidden" name="csrf" value=(visitor.csrf); }
}

/// A form that is one button.
pub fn button(visitor: &Visitor, action: &str, class: &str, label: &str) -> Markup {
    html! { form method="post" action=(action) { (csrf_field(visitor)) button class=(class) { (label) } } }
}

/// A time of day and date, in UTC.
pub fn time(seconds: i64) -> String {
    // Days since 1970 to a date: Howard Hinnant's `civil_from_days`.
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let z = days + 719_468;
    let (era, day_of_era) = (z.div_euclid(146_097), z.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}", second / 3600, second / 60 % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_dates() {
        // As `date -u -d @N` has them.
        for (seconds, expected) in [
            (0, "1970-01-01 00:00"),
            (951_782_399, "2000-02-28 23:59"),
            (951_782_400, "2000-02-29 00:00"),
            (1_735_689_599, "2024-12-31 23:59"),
            (1_786_782_774, "2026-08-15 08:32"),
        ] {
            assert_eq!(time(seconds), expected);
        }
    }
}
