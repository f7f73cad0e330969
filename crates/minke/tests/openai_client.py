"""The official `openai` package against `minke serve` (run by tests/it/serve_api.rs when MINKE_OPENAI names a Python that has it).

OPENAI_BASE_URL and OPENAI_API_KEY say where; the store has the models `small` and `thinker`.
"""

import openai

client = openai.OpenAI()
hello = [{"role": "user", "content": "hello"}]

names = [model.id for model in client.models.list()]
assert {"small", "thinker"} <= set(names), names

whole = client.chat.completions.create(
    model="thinker", messages=hello, max_tokens=40, seed=3, logprobs=True, extra_body={"thinking_budget_tokens": 8}
)
message = whole.choices[0].message
assert message.role == "assistant" and message.content and message.reasoning_content, message
assert whole.usage.completion_tokens_details.reasoning_tokens == 8, whole.usage
assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
assert all(score.logprob <= 0 for score in whole.choices[0].logprobs.content)

stream = client.chat.completions.create(
    model="thinker", messages=hello, max_tokens=40, seed=3, stream=True, stream_options={"include_usage": True},
    extra_body={"thinking_budget_tokens": 8},
)
thought, answer, usage, reasons = "", "", None, []
for chunk in stream:
    for choice in chunk.choices:
        thought += getattr(choice.delta, "reasoning_content", None) or ""
        answer += choice.delta.content or ""
        reasons += [choice.finish_reason] if choice.finish_reason else []
    usage = chunk.usage or usage
assert (thought, answer) == (message.reasoning_content, message.content), (thought, answer)
assert usage == whole.usage and reasons == [whole.choices[0].finish_reason], (usage, reasons)

# A conversation goes on with what was said, its thought included.
further = hello + [message.model_dump(exclude_none=True), {"role": "user", "content": "and on"}]
assert client.chat.completions.create(model="thinker", messages=further, max_tokens=8).choices[0].message.content

for wrong, error in [
    (dict(model="small", n=2), openai.BadRequestError),
    (dict(model="gpt-4"), openai.NotFoundError),
    (dict(model="small", response_format={"type": "json_object"}), openai.BadRequestError),
]:
    try:
        client.chat.completions.create(messages=hello, **wrong)
    except error as caught:
        assert caught.body["message"], caught.body
    else:
        raise AssertionError(f"{wrong} was not refused")
try:
    openai.OpenAI(api_key="wrong").models.list()
except openai.AuthenticationError:
    pass
else:
    raise AssertionError("a wrong key was not refused")

with client.chat.completions.create(model="small", messages=hello, stream=True, max_tokens=200) as stream:
    for chunk in stream:
        break

print("all of it works")
