//! Bodies of chat completions: each is understood or refused in one sentence, whatever it says.
#![no_main]

use libfuzzer_sys::fuzz_target;

// `minke` is a binary, so its file is compiled in here, with the least of an error that it asks for.
#[path = "../../crates/minke/src/serve/parameters.rs"]
mod parameters;

mod error {
    #[derive(Debug)]
    pub struct Failure(pub String);

    impl Failure {
        pub fn bad_request(message: impl Into<String>) -> Self {
            Self(message.into())
        }

        pub fn parameter(_: &str, _: &'static str, message: impl Into<String>) -> Self {
            Self(message.into())
        }
    }
}

fuzz_target!(|body: &[u8]| {
    match parameters::parse(body) {
        Ok(asked) => assert!(!asked.model.is_empty() && asked.messages.iter().all(|m| !m.role.is_empty())),
        Err(failure) => assert!(!failure.0.is_empty()),
    }
});
