//! A model's chat template: Jinja that turns a conversation into the text the model was trained on, through
//! `minijinja`, in the surroundings that transformers gives it (`render_jinja_template`).

use std::time::{SystemTime, UNIX_EPOCH};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, Value, ValueKind};
use minijinja::{Environment, ErrorKind};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

const NAME: &str = "chat";

/// What one rendering may cost. A template comes with the model and is not trusted: this many instructions, or 64
/// times as many bytes, are far above what a conversation needs and end within a second.
const FUEL: u64 = 2_000_000;

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks: `system`, `user` or `assistant` in most templates.
    pub role: String,
    /// What is said.
    pub content: String,
    /// What was thought before it was said, for templates that put thoughts back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
}

impl Message {
    /// A turn without a thought.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into(), reasoning_content: None }
    }
}

/// A compiled template.
#[derive(Clone, Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    source: String,
    bos: String,
    eos: String,
}

impl ChatTemplate {
    /// Compiles `source`; `bos` and `eos` are the texts it sees as `bos_token` and `eos_token`.
    ///
    /// # Errors
    /// When it is not a template, with the line.
    pub fn new(source: &str, bos: Option<&str>, eos: Option<&str>) -> Result<Self> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(sentence)?);
        environment.set_fuel(Some(FUEL));
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.set_formatter(|out, state, value| match value {
            value if value.is_none() => Ok(out.write_str("None")?),
            value if value.is_true() && value.kind() == ValueKind::Bool => Ok(out.write_str("True")?),
            value if value.kind() == ValueKind::Bool => Ok(out.write_str("False")?),
            value => minijinja::escape_formatter(out, state, value),
        });
        environment.add_filter("tojson", to_json);
        environment.add_function(
            "raise_exception",
            |message: String| -> std::result::Result<Value, minijinja::Error> {
                Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
            },
        );
        environment.add_function("strftime_now", |format: &str| {
            let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
            strftime(format, seconds)
        });
        environment.add_template_owned(NAME, without_generation_tags(source)).map_err(sentence)?;
        Ok(Self {
            environment,
            source: source.to_string(),
            bos: bos.unwrap_or_default().to_string(),
            eos: eos.unwrap_or_default().to_string(),
        })
    }

    /// The template's text.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The text of a conversation, to be encoded without adding special tokens: the template writes them itself.
    ///
    /// `add_generation_prompt` ends it where the assistant's turn begins. `extra` are further variables, such as
    /// `enable_thinking`.
    ///
    /// # Errors
    /// When the template refuses the conversation (its own words), fails, or takes more than its share of time.
    pub fn render(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
        extra: &serde_json::Map<String, serde_json::Value>,
    ) -> Result<String> {
        let variables = minijinja::context! {
            messages => Value::from(Serde(messages)),
            add_generation_prompt,
            bos_token => self.bos.as_str(),
            eos_token => self.eos.as_str(),
            tools => Value::from(()),
            documents => Value::from(()),
            ..Value::from(Serde(extra)),
        };
        let template = self.environment.get_template(NAME).map_err(sentence)?;
        template.render(variables).map_err(|e| match e.kind() {
            ErrorKind::OutOfFuel => Error::new("the chat template does not come to an end"),
            _ => sentence(e),
        })
    }
}

fn sentence(error: minijinja::Error) -> Error {
    let line = error.line().map(|line| format!(" at line {line}")).unwrap_or_default();
    let what = error.detail().map_or_else(|| error.kind().to_string(), str::to_string);
    Error::new(format!("the chat template fails{line}: {what}"))
}

/// transformers marks what the assistant wrote by tags of its own; they put nothing in the text.
fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(begin) = rest.find("{%") {
        let (text, tag) = rest.split_at(begin + 2);
        let Some(end) = tag.find("%}") else { break };
        let (tag, after) = tag.split_at(end);
        out.push_str(text);
        match tag.trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+') {
            "generation" => out.push_str(&tag.replace("generation", "if true")),
            "endgeneration" => out.push_str(&tag.replace("endgeneration", "endif")),
            _ => out.push_str(tag),
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

/// JSON as Python's `json.dumps` spaces it; transformers replaces Jinja's filter, which escapes for HTML.
fn to_json(value: &Value, options: Kwargs) -> std::result::Result<String, minijinja::Error> {
    let indent: Option<usize> = options.get("indent")?;
    for ignored in ["ensure_ascii", "separators", "sort_keys"] {
        let _: Option<Value> = options.get(ignored)?;
    }
    options.assert_all_used()?;
    let failed = |e: serde_json::Error| minijinja::Error::new(ErrorKind::BadSerialization, e.to_string());
    let mut out = Vec::new();
    match indent {
        Some(width) => {
            let spaces = " ".repeat(width.min(16));
            let formatter = serde_json::ser::PrettyFormatter::with_indent(spaces.as_bytes());
            value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, formatter)).map_err(failed)?;
        }
        None => {
            value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, Spaced)).map_err(failed)?;
        }
    }
    String::from_utf8(out).map_err(|e| minijinja::Error::new(ErrorKind::BadSerialization, e.to_string()))
}

/// One line, with a space after commas and colons.
struct Spaced;

impl serde_json::ser::Formatter for Spaced {
    fn begin_array_value<W: std::io::Write + ?Sized>(&mut self, out: &mut W, first: bool) -> std::io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_key<W: std::io::Write + ?Sized>(&mut self, out: &mut W, first: bool) -> std::io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_value<W: std::io::Write + ?Sized>(&mut self, out: &mut W) -> std::io::Result<()> {
        out.write_all(b": ")
    }
}

/// `strftime` for the fields that templates use, in UTC; others are left as they are.
fn strftime(format: &str, unix_seconds: u64) -> String {
    const MONTHS: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    const DAYS: [&str; 7] = ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];
    let days = unix_seconds / 86_400;
    let (year, month, day) = civil(days);
    let (month_name, day_name) = (MONTHS[month - 1], DAYS[(days % 7) as usize]);
    let mut out = String::new();
    let mut letters = format.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            out.push(letter);
            continue;
        }
        out.push_str(&match letters.next() {
            Some('Y') => year.to_string(),
            Some('y') => format!("{:02}", year % 100),
            Some('m') => format!("{month:02}"),
            Some('d') => format!("{day:02}"),
            Some('B') => month_name.to_string(),
            Some('b') => month_name[..3].to_string(),
            Some('A') => day_name.to_string(),
            Some('a') => day_name[..3].to_string(),
            Some('H') => format!("{:02}", unix_seconds / 3600 % 24),
            Some('M') => format!("{:02}", unix_seconds / 60 % 60),
            Some('S') => format!("{:02}", unix_seconds % 60),
            Some('%') => "%".to_string(),
            Some(other) => format!("%{other}"),
            None => "%".to_string(),
        });
    }
    out
}

/// Year, month (from 1) and day (from 1) of a day since 1970-01-01, in the Gregorian calendar.
fn civil(mut days: u64) -> (u64, usize, u64) {
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let mut year = 1970;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while days >= lengths[month] {
        days -= lengths[month];
        month += 1;
    }
    (year, month + 1, days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(source: &str, messages: &[Message]) -> Result<String> {
        ChatTemplate::new(source, Some("<s>"), Some("</s>"))?.render(messages, true, &serde_json::Map::new())
    }

    #[test]
    fn surroundings_are_those_of_transformers() {
        let messages = [Message::new("user", " hi "), Message::new("assistant", "<b> & 'c'")];
        for (source, expected) in [
            (
                "{{ bos_token }}{% for m in messages %}{{ m['role'] }}:{{ m.content.strip() }};{% endfor %}",
                "<s>user:hi;assistant:<b> & 'c';",
            ),
            ("{{ messages[1] | tojson }}", r#"{"role": "assistant", "content": "<b> & 'c'"}"#),
            ("{% if add_generation_prompt %}\n    go\n{% endif %}\n", "    go\n"),
            ("{{ none }} {{ true }} {{ not_there }} {{ tools is none }}", "None True  True"),
            ("{% for m in messages %}{% if loop.index0 == 1 %}{% break %}{% endif %}{{ m.role }}{% endfor %}", "user"),
            ("a{% generation %}b{%- endgeneration -%} c", "abc"),
            ("{% set ns = namespace(x=1) %}{% set ns.x = ns.x + 1 %}{{ ns.x }}", "2"),
            ("{{ messages[0].content.split('h')[-1] ~ eos_token }}", "i </s>"),
        ] {
            assert_eq!(render(source, &messages).unwrap(), expected, "{source}");
        }
        let mut extra = serde_json::Map::new();
        extra.insert("enable_thinking".into(), false.into());
        let template = ChatTemplate::new("{{ enable_thinking }}", None, None).unwrap();
        assert_eq!(template.render(&[], false, &extra).unwrap(), "False");
    }

    #[test]
    fn templates_that_fail_or_never_end_get_a_sentence() {
        let message = |source: &str| render(source, &[]).unwrap_err().to_string();
        assert_eq!(
            message("{{ raise_exception('roles must alternate') }}"),
            "the chat template fails at line 1: roles must alternate"
        );
        assert!(message("{% for %}").starts_with("the chat template fails at line 1: "));
        let endless = "the chat template does not come to an end";
        assert_eq!(
            message("{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}"),
            endless
        );
        assert_eq!(
            message("{% set x = namespace(s='ab') %}{% for i in range(99) %}{% set x.s = x.s ~ x.s %}{% endfor %}"),
            endless
        );
        assert!(message("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}").contains("recursion"));
    }

    #[test]
    fn dates_are_right_around_leap_years() {
        for (seconds, expected) in [
            (0, "Thu 01 Jan 1970 00:00:00"),
            (951_782_399, "Mon 28 Feb 2000 23:59:59"),
            (951_782_400, "Tue 29 Feb 2000 00:00:00"),
            (4_107_542_400, "Mon 01 Mar 2100 00:00:00"),
            (1_735_689_599, "Tue 31 Dec 2024 23:59:59"),
        ] {
            assert_eq!(strftime("%a %d %b %Y %H:%M:%S", seconds), expected);
        }
        assert_eq!(strftime("%B %A %y %% %q %", 0), "January Thursday 70 % %q %");
    }
}
