//! A model that can be talked to: messages to a prompt, tokens to text that is told apart into thought and answer. The
//! terminal and the server share it.

use std::sync::Arc;

use anyhow::Result;
use minke_engine::{Speculative, TransformerDecoder};
use minke_kernels::Cpu;
use minke_kernels::kv::{KvDtype, PAGE_POSITIONS};
use minke_model::{ChatTemplate, Checkpoint, DecodeStream, Message, Precision, Tokenizer, Transformer};

use crate::load;
use crate::speculate::Speculation;
use crate::think::{CLOSE, OPEN, Part, Splitter};

/// What is said when a model's weights are of no use.
pub const NOT_NUMBERS: &str = "the model's logits are not numbers: its weights are damaged";

/// A model with its tokenizer and chat template.
pub struct Talker {
    cpu: Arc<Cpu>,
    transformer: Transformer,
    tokenizer: Tokenizer,
    template: Option<ChatTemplate>,
    speculation: Speculation,
    kv: KvDtype,
}

/// What a model goes on from.
pub struct Prompt {
    pub tokens: Vec<u32>,
    /// Whether it leaves a thought open.
    pub inside: bool,
}

impl Talker {
    /// Reads a model with everything around it; `cpu` gives the machine to run it on.
    pub fn load(
        checkpoint: &Checkpoint,
        precision: Precision,
        cpu: impl FnOnce() -> Result<Arc<Cpu>>,
    ) -> Result<Talker> {
        let cpu = cpu()?;
        // Reading a large vocabulary takes a core about as long as reading the weights takes the others.
        let (words, transformer) = std::thread::scope(|scope| {
            let words = scope.spawn(|| Ok((checkpoint.tokenizer()?, checkpoint.chat_template()?)));
            let transformer = load::transformer(&cpu, checkpoint, precision);
            (words.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), transformer)
        });
        let words: minke_model::Result<_> = words;
        let ((tokenizer, template), transformer) = (words?, transformer?);
        Ok(Talker { cpu, transformer, tokenizer, template, speculation: Speculation::Off, kv: KvDtype::F32 })
    }

    /// The same, with keys and values kept otherwise than in f32.
    pub fn with_kv(self, kv: KvDtype) -> Talker {
        Talker { kv, ..self }
    }

    /// Has its tokens guessed from now on, by something that can; `checkpoint` is what it was loaded from.
    pub fn guess(&mut self, checkpoint: &Checkpoint, precision: Precision, speculation: &Speculation) -> Result<()> {
        self.speculation = speculation.fitted(&self.cpu, checkpoint, precision, &self.tokenizer)?;
        Ok(())
    }

    /// The model as an engine runs it; what guesses for it keeps to so many pages.
    pub fn decoder(&self, pages: usize) -> Speculative<'_, TransformerDecoder<'_>> {
        self.speculation.decoder(&self.cpu, &self.transformer, self.kv, pages)
    }

    /// Bytes of a page of its keys and values, those that guesses need beside them included.
    pub fn page_bytes(&self) -> usize {
        self.speculation.page_bytes(&self.transformer, self.kv)
    }

    /// Bytes of keys and values of so many tokens.
    pub fn kv_bytes(&self, tokens: usize) -> u64 {
        (tokens.div_ceil(PAGE_POSITIONS) as u64).saturating_mul(self.page_bytes() as u64)
    }

    /// The model itself.
    pub fn transformer(&self) -> &Transformer {
        &self.transformer
    }

    /// Its tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Whether it was made for conversations; otherwise it goes on from bare text.
    pub fn has_template(&self) -> bool {
        self.template.is_some()
    }

    /// The tokens that open and close a thought, if its vocabulary has them.
    pub fn tags(&self) -> Option<(u32, u32)> {
        self.tokenizer.token_id(OPEN).zip(self.tokenizer.token_id(CLOSE))
    }

    /// Whether its template can be asked to leave thoughts out.
    fn template_knows_thoughts(&self) -> bool {
        self.template.as_ref().is_some_and(|t| ["enable_thinking", OPEN].iter().any(|word| t.source().contains(word)))
    }

    /// Whether it has thoughts that could be turned off.
    pub fn can_think(&self) -> bool {
        self.tags().is_some() || self.template_knows_thoughts()
    }

    /// How freely tokens are drawn where nobody says.
    pub fn default_temperature(&self) -> f32 {
        if self.has_template() { 0.6 } else { 0.0 }
    }

    /// How many tokens can follow a prompt; at least one is asked for, so that a prompt that is too long is refused for
    /// what it is.
    pub fn room(&self, prompt_tokens: usize) -> usize {
        self.transformer.context().saturating_sub(prompt_tokens).max(1)
    }

    /// The prompt that `messages`, the last of them the user's, come to. A model for bare text, such as one trained on a
    /// task here, has no memory: it goes on from the last message alone.
    pub fn prompt(&self, messages: &[Message], think: bool) -> Result<Prompt> {
        let Some(template) = &self.template else {
            let text = messages.last().map_or("", |message| message.content.as_str());
            let no_thought = if think || self.tags().is_none() { String::new() } else { format!("{OPEN}{CLOSE}") };
            let tokens = self.tokenizer.encode(&format!("{text}{no_thought}"), true)?;
            return Ok(Prompt { tokens, inside: false });
        };
        let mut variables = serde_json::Map::new();
        // The names that Qwen3's and DeepSeek-V3.1's templates give to it.
        for name in ["enable_thinking", "thinking"] {
            variables.insert(name.into(), think.into());
        }
        let mut text = template.render(messages, true, &variables)?;
        let inside = text.trim_end().ends_with(OPEN);
        if !think && !text.trim_end().ends_with(CLOSE) {
            if inside {
                text.push_str(&format!("\n{CLOSE}\n\n"));
            } else if self.tags().is_some() {
                text.push_str(&format!("{OPEN}\n\n{CLOSE}\n\n"));
            }
        }
        Ok(Prompt { tokens: self.tokenizer.encode(&text, false)?, inside: inside && think })
    }

    /// A token's text as far as it is certain; of special tokens only the tags of thoughts have one.
    fn piece(&self, text_of: &mut DecodeStream, id: u32) -> Result<String> {
        for tag in [OPEN, CLOSE] {
            if self.tokenizer.token_id(tag) == Some(id) {
                return Ok(text_of.finish(&self.tokenizer)? + tag);
            }
        }
        if self.tokenizer.eos.contains(&id) { Ok(String::new()) } else { Ok(text_of.push(&self.tokenizer, id)?) }
    }
}

/// Text, and what it belongs to.
pub type Pieces = Vec<(Part, String)>;

/// Reads what a model writes, token by token.
pub struct Reader {
    splitter: Splitter,
    text_of: DecodeStream,
}

impl Reader {
    /// `inside` says that the prompt has opened the thought already.
    pub fn new(inside: bool) -> Reader {
        Reader { splitter: Splitter::new(inside), text_of: DecodeStream::new(true) }
    }

    /// Takes a token: the text that has become certain, by parts, and the part that the token itself is of; tags and
    /// tokens that end a reply are of none.
    pub fn push(&mut self, model: &Talker, id: u32) -> Result<(Pieces, Option<Part>)> {
        let was_in_thought = self.splitter.in_thought();
        let pieces = self.splitter.push(&model.piece(&mut self.text_of, id)?);
        let is_tag = [OPEN, CLOSE].iter().any(|tag| model.tokenizer.token_id(tag) == Some(id));
        let part = match (was_in_thought, self.splitter.in_thought()) {
            (true, true) => Some(Part::Thought),
            (false, false) if !is_tag && !model.tokenizer.eos.contains(&id) => Some(Part::Answer),
            _ => None,
        };
        Ok((pieces, part))
    }

    /// Ends the text: what was held back.
    pub fn finish(&mut self, model: &Talker) -> Result<Pieces> {
        let mut pieces = self.splitter.push(&self.text_of.finish(&model.tokenizer)?);
        pieces.extend(self.splitter.finish());
        Ok(pieces)
    }
}
