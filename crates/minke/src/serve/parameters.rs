//! What a chat completion may ask for: OpenAI's parameters, DeepSeek's, llama-server's and vLLM's where they mean the
//! same. What can't be done is refused by name, never passed over in silence.

use minke_model::Message;
use serde_json::{Map, Value};

use super::error::Failure;

/// Stop strings that a request may have.
const STOPS: usize = 16;

/// A request that was understood.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    pub model: String,
    pub messages: Vec<Message>,
    pub settings: Settings,
    pub stream: bool,
    /// Whether a stream ends with a chunk for the usage alone, as OpenAI's does.
    pub include_usage: bool,
    pub logprobs: bool,
}

/// How a reply is made.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Whether it may think before it answers.
    pub think: bool,
    /// Whether it shall think little.
    pub low: bool,
    /// Most tokens of its thought.
    pub budget: Option<usize>,
    /// Most tokens of thought and answer together.
    pub max_tokens: Option<usize>,
    pub temperature: Option<f32>,
    pub top_k: Option<usize>,
    pub top_p: Option<f32>,
    pub min_p: Option<f32>,
    pub seed: Option<u64>,
    pub stop: Vec<String>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            think: true,
            low: false,
            budget: None,
            max_tokens: None,
            temperature: None,
            top_k: None,
            top_p: None,
            min_p: None,
            seed: None,
            stop: Vec::new(),
        }
    }
}

/// A parameter with a value that is not null.
struct Field<'a> {
    name: String,
    value: &'a Value,
}

/// Reads the body of a request.
pub fn parse(body: &[u8]) -> Result<Asked, Failure> {
    let body: Value = serde_json::from_slice(body)
        .map_err(|error| Failure::bad_request(format!("the request's body is not JSON: {error}")))?;
    let body = body.as_object().ok_or_else(|| Failure::bad_request("the request's body is not a JSON object"))?;
    let mut asked = Asked {
        model: String::new(),
        messages: Vec::new(),
        settings: Settings::default(),
        stream: false,
        include_usage: false,
        logprobs: false,
    };
    for field in fields(body, "") {
        asked.take(&field)?;
    }
    if asked.model.is_empty() {
        return Err(Failure::parameter("model", "missing_parameter", "model is missing; GET /v1/models lists them"));
    }
    match asked.messages.last() {
        None => {
            let message = "messages is missing; give at least one {\"role\": \"user\", \"content\": \"…\"}";
            Err(Failure::parameter("messages", "missing_parameter", message))
        }
        Some(last) if last.role != "user" => {
            let message = "messages must end with one of the user's; going on with an assistant's is not done here";
            Err(Failure::parameter("messages", "unsupported_value", message))
        }
        Some(_) => Ok(asked),
    }
}

/// The fields of an object that lies at `path`, those that are null left out.
fn fields<'a>(object: &'a Map<String, Value>, path: &str) -> impl Iterator<Item = Field<'a>> {
    let name = move |key: &str| if path.is_empty() { key.to_string() } else { format!("{path}.{key}") };
    let fields: Vec<Field<'a>> = object.iter().map(|(key, value)| Field { name: name(key), value }).collect();
    fields.into_iter().filter(|field| !field.value.is_null())
}

impl Asked {
    fn take(&mut self, field: &Field<'_>) -> Result<(), Failure> {
        let settings = &mut self.settings;
        match field.name.as_str() {
            "model" => self.model = field.string()?.to_string(),
            "messages" => self.messages = field.array()?.iter().map(message).collect::<Result<_, _>>()?,
            "stream" => self.stream = field.boolean()?,
            "stream_options" => {
                for option in fields(field.object()?, &field.name) {
                    match option.name.as_str() {
                        "stream_options.include_usage" => self.include_usage = option.boolean()?,
                        _ => return Err(option.unknown()),
                    }
                }
            }
            "logprobs" => self.logprobs = field.boolean()?,
            "max_tokens" | "max_completion_tokens" => settings.max_tokens = Some(field.count(1)?),
            "temperature" => {
                let temperature = field.number(0.0, 100.0)?;
                if temperature != 0.0 && temperature < 0.01 {
                    return Err(field.must("be 0 or from 0.01 to 100"));
                }
                settings.temperature = Some(temperature);
            }
            "top_p" => {
                settings.top_p = Some(field.number(0.0, 1.0)?);
                if settings.top_p < Some(f32::MIN_POSITIVE) {
                    return Err(field.must("be above 0 and at most 1"));
                }
            }
            "min_p" => settings.min_p = Some(field.number(0.0, 1.0)?),
            // What llama-server and vLLM mean by "all tokens".
            "top_k" if [Some(0), Some(-1)].contains(&field.value.as_i64()) => settings.top_k = None,
            "top_k" => settings.top_k = Some(field.count(1)?),
            "seed" => {
                let bits = field.value.as_u64().or(field.value.as_i64().map(i64::cast_unsigned));
                settings.seed = Some(bits.ok_or_else(|| field.must("be a whole number of 64 bits"))?);
            }
            "stop" => settings.stop = field.stops()?,
            "thinking" | "reasoning" | "chat_template_kwargs" | "reasoning_effort" => settings.take(field)?,
            "thinking_budget_tokens" | "thinking_token_budget" | "thinking_budget" => settings.take(field)?,
            // Labels that ask for nothing.
            "user" | "user_id" | "safety_identifier" | "metadata" => {}
            name => return asked_for_nothing(name, field.value).then_some(()).ok_or_else(|| field.unknown()),
        }
        Ok(())
    }
}

/// Whether a parameter that is not served here is given the value that it has when it is left out.
fn asked_for_nothing(name: &str, value: &Value) -> bool {
    match name {
        "n" => value.as_u64() == Some(1),
        "top_logprobs" | "presence_penalty" | "frequency_penalty" => value.as_f64() == Some(0.0),
        "logit_bias" => value.as_object().is_some_and(Map::is_empty),
        "tools" | "functions" => value.as_array().is_some_and(Vec::is_empty),
        "tool_choice" => value == "none",
        "response_format" => value["type"] == "text",
        "modalities" => *value == serde_json::json!(["text"]),
        "store" => value == false,
        "service_tier" => value == "auto" || value == "default",
        _ => false,
    }
}

impl Settings {
    /// Whether and how much it thinks, in everybody's words.
    fn take(&mut self, field: &Field<'_>) -> Result<(), Failure> {
        match field.name.as_str() {
            "thinking" | "reasoning" | "chat_template_kwargs" => {
                for inner in fields(field.object()?, &field.name) {
                    self.take(&inner)?;
                }
            }
            "thinking.type" => match field.string()? {
                "enabled" | "auto" | "adaptive" => {}
                "disabled" => self.think = false,
                _ => return Err(field.must("be \"enabled\" or \"disabled\"")),
            },
            "chat_template_kwargs.enable_thinking" | "chat_template_kwargs.thinking" => {
                self.think &= field.boolean()?
            }
            "reasoning_effort" | "reasoning.effort" => match field.string()? {
                "none" => self.think = false,
                "minimal" | "low" => self.low = true,
                "medium" | "high" | "xhigh" | "max" | "ultra" => {}
                _ => return Err(field.must("be \"none\", \"low\" or \"high\"")),
            },
            "thinking_budget_tokens"
            | "thinking_token_budget"
            | "thinking_budget"
            | "thinking.budget_tokens"
            | "reasoning.max_tokens" => self.budget = Some(field.count(0)?),
            _ => return Err(field.unknown()),
        }
        Ok(())
    }
}

impl Field<'_> {
    fn must(&self, what: &str) -> Failure {
        Failure::parameter(&self.name, "invalid_value", format!("{} must {what}", self.name))
    }

    fn unknown(&self) -> Failure {
        let message = format!("{} = {} is not served here; leave it out", self.name, shortened(self.value));
        Failure::parameter(&self.name, "unsupported_parameter", message)
    }

    fn string(&self) -> Result<&str, Failure> {
        self.value.as_str().ok_or_else(|| self.must("be a string"))
    }

    fn boolean(&self) -> Result<bool, Failure> {
        self.value.as_bool().ok_or_else(|| self.must("be true or false"))
    }

    fn object(&self) -> Result<&Map<String, Value>, Failure> {
        self.value.as_object().ok_or_else(|| self.must("be an object"))
    }

    fn array(&self) -> Result<&Vec<Value>, Failure> {
        self.value.as_array().ok_or_else(|| self.must("be an array"))
    }

    fn count(&self, least: u64) -> Result<usize, Failure> {
        let count = self.value.as_u64().filter(|&count| count >= least).and_then(|count| usize::try_from(count).ok());
        count.ok_or_else(|| self.must(&format!("be a whole number, at least {least}")))
    }

    fn number(&self, least: f64, most: f64) -> Result<f32, Failure> {
        let number = self.value.as_f64().filter(|number| (least..=most).contains(number));
        number.map(|number| number as f32).ok_or_else(|| self.must(&format!("be a number from {least} to {most}")))
    }

    fn stops(&self) -> Result<Vec<String>, Failure> {
        let texts = match self.value {
            Value::Array(texts) => texts.iter().map(Value::as_str).collect(),
            text => text.as_str().map(|text| vec![text]),
        };
        let texts: Vec<&str> = texts.ok_or_else(|| self.must("be a string or an array of strings"))?;
        if texts.len() > STOPS || texts.iter().any(|text| text.is_empty()) {
            return Err(self.must(&format!("have at most {STOPS} strings, none of them empty")));
        }
        Ok(texts.into_iter().map(str::to_string).collect())
    }
}

/// A message as templates read it.
fn message(value: &Value) -> Result<Message, Failure> {
    let field = |name: &str, value| Field { name: format!("messages.{name}"), value };
    let object = value.as_object().ok_or_else(|| field("[]", value).must("be an object"))?;
    let mut message = Message::new("", "");
    for (key, value) in object.iter().filter(|(_, value)| !value.is_null()) {
        let field = field(key, value);
        match key.as_str() {
            "role" => {
                message.role = match field.string()? {
                    "developer" => "system",
                    role @ ("system" | "user" | "assistant") => role,
                    _ => return Err(field.must("be \"system\", \"user\" or \"assistant\"")),
                }
                .to_string();
            }
            "content" => message.content = content(&field)?,
            "reasoning_content" | "reasoning" => message.reasoning_content = Some(field.string()?.to_string()),
            // Some clients send it with every message.
            "name" => {}
            "tool_calls" | "annotations" if value.as_array().is_some_and(Vec::is_empty) => {}
            _ => return Err(field.unknown()),
        }
    }
    if message.role.is_empty() {
        return Err(Failure::parameter("messages.role", "missing_parameter", "one of the messages has no role"));
    }
    Ok(message)
}

/// A message's text, or its parts' texts.
fn content(field: &Field<'_>) -> Result<String, Failure> {
    let Value::Array(parts) = field.value else {
        return field.string().map(str::to_string).map_err(|_| field.must("be a string or an array of text parts"));
    };
    let text = |part: &Value| (part["type"] == "text").then(|| part["text"].as_str().map(str::to_string)).flatten();
    let texts: Option<Vec<String>> = parts.iter().map(text).collect();
    texts.map(|texts| texts.concat()).ok_or_else(|| field.must("have parts of type \"text\" only"))
}

/// A value that fits in a sentence.
fn shortened(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A request with these fields beside the ones it must have.
    fn with(extra: Value) -> Result<Asked, Failure> {
        let mut body = json!({ "model": "m", "messages": [{ "role": "user", "content": "hi" }] });
        let fields = body.as_object_mut().unwrap();
        for (key, value) in extra.as_object().unwrap() {
            fields.insert(key.clone(), value.clone());
        }
        parse(body.to_string().as_bytes())
    }

    #[test]
    fn everybodys_words_for_thinking_mean_the_same() {
        for (extra, think, low, budget) in [
            (json!({}), true, false, None),
            (json!({ "thinking": { "type": "enabled", "budget_tokens": 9 } }), true, false, Some(9)),
            (json!({ "thinking": { "type": "disabled" } }), false, false, None),
            (json!({ "chat_template_kwargs": { "enable_thinking": false } }), false, false, None),
            (json!({ "chat_template_kwargs": { "thinking": true } }), true, false, None),
            (json!({ "reasoning_effort": "none" }), false, false, None),
            (json!({ "reasoning_effort": "minimal" }), true, true, None),
            (json!({ "reasoning": { "effort": "low" } }), true, true, None),
            (json!({ "reasoning_effort": "max" }), true, false, None),
            (json!({ "thinking_budget_tokens": 5 }), true, false, Some(5)),
            (json!({ "thinking_token_budget": 0, "thinking": null }), true, false, Some(0)),
        ] {
            let settings = with(extra.clone()).unwrap().settings;
            assert_eq!((settings.think, settings.low, settings.budget), (think, low, budget), "{extra}");
        }
    }

    #[test]
    fn what_asks_for_nothing_is_taken() {
        let asked = with(json!({
            "n": 1, "top_logprobs": 0, "presence_penalty": 0.0, "frequency_penalty": 0, "logit_bias": {}, "tools": [],
            "tool_choice": "none", "response_format": { "type": "text" }, "user": "u1", "metadata": {}, "stop": [],
            "temperature": null, "top_k": -1, "store": false,
        }))
        .unwrap();
        assert_eq!(asked.settings, Settings::default());
    }

    #[test]
    fn what_is_not_served_is_refused_by_name() {
        for (extra, param) in [
            (json!({ "n": 2 }), "n"),
            (json!({ "tools": [{ "type": "function" }] }), "tools"),
            (json!({ "response_format": { "type": "json_object" } }), "response_format"),
            (json!({ "presence_penalty": 0.5 }), "presence_penalty"),
            (json!({ "frequency_penalty": -1 }), "frequency_penalty"),
            (json!({ "logit_bias": { "50": 1 } }), "logit_bias"),
            (json!({ "top_logprobs": 5 }), "top_logprobs"),
            (json!({ "temprature": 0.5 }), "temprature"),
            (json!({ "stream_options": { "include_usages": true } }), "stream_options.include_usages"),
            (json!({ "chat_template_kwargs": { "tone": "kind" } }), "chat_template_kwargs.tone"),
            (json!({ "temperature": 0.001 }), "temperature"),
            (json!({ "temperature": "hot" }), "temperature"),
            (json!({ "top_p": 0 }), "top_p"),
            (json!({ "top_k": -2 }), "top_k"),
            (json!({ "min_p": 2 }), "min_p"),
            (json!({ "max_tokens": 0 }), "max_tokens"),
            (json!({ "seed": 1.5 }), "seed"),
            (json!({ "stop": [""] }), "stop"),
            (json!({ "stop": [1] }), "stop"),
            (json!({ "stream": "yes" }), "stream"),
            (json!({ "thinking": { "type": "sometimes" } }), "thinking.type"),
            (json!({ "model": null }), "model"),
            (json!({ "messages": [] }), "messages"),
            (json!({ "messages": [{ "content": "hi" }] }), "messages.role"),
            (json!({ "messages": [{ "role": "tool", "content": "4" }] }), "messages.role"),
            (json!({ "messages": [{ "role": "assistant", "content": "4" }] }), "messages"),
            (json!({ "messages": [{ "role": "user", "content": [{ "type": "image_url" }] }] }), "messages.content"),
            (
                json!({ "messages": [{ "role": "user", "content": "hi", "tool_call_id": "1" }] }),
                "messages.tool_call_id",
            ),
        ] {
            let error = with(extra.clone()).expect_err(&extra.to_string()).object();
            assert_eq!(error["error"]["param"], param, "{extra}: {error}");
            assert!(error["error"]["message"].as_str().unwrap().contains(param.split('.').next().unwrap()), "{error}");
            assert_eq!(error["error"]["type"], "invalid_request_error");
        }
        assert_eq!(parse(b"{").unwrap_err().object()["error"]["param"], Value::Null);
        assert_eq!(parse(b"[]").unwrap_err().object()["error"]["param"], Value::Null);
    }

    #[test]
    fn messages_are_read_in_every_form() {
        let asked = with(json!({ "messages": [
            { "role": "developer", "content": "Be brief." },
            { "role": "user", "content": [{ "type": "text", "text": "1+" }, { "type": "text", "text": "1" }] },
            { "role": "assistant", "content": null, "reasoning": "easy", "tool_calls": [] },
            { "role": "user", "content": "2+2", "name": "Ada" },
        ] }));
        let expected = [
            Message::new("system", "Be brief."),
            Message::new("user", "1+1"),
            Message { reasoning_content: Some("easy".into()), ..Message::new("assistant", "") },
            Message::new("user", "2+2"),
        ];
        assert_eq!(asked.unwrap().messages, expected);
    }
}
