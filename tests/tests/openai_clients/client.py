"""What users of OpenAI's package for Python do, against a pool whose model is SmolLM2. Run by main.rs."""

import json
import os
import sys
import time

import openai

client = openai.OpenAI(base_url=sys.argv[1] + "/v1", api_key="any word", timeout=60)
[model] = [entry.id for entry in client.models.list()]
assert client.models.retrieve(model).context_length >= 2048


def ask(text, **more):
    messages = [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": [{"type": "text", "text": text}]},
    ]
    more = {"temperature": 0, "max_tokens": 24, **more}
    return client.chat.completions.create(model=model, messages=messages, **more)


def refused(kind, code, param=None, **more):
    try:
        ask("Hello", **more)
    except kind as error:
        assert (error.code, error.param) == (code, param), (error.code, error.param)
        return error
    raise AssertionError("it is not refused")


# Whole, and in chunks, with the same text and the same bill.
answer = ask("Name the capital of France.")
text = answer.choices[0].message.content
assert "Paris" in text, text
assert answer.usage.completion_tokens > 0 and answer.usage.cost_msat > 0
chunks = list(ask("Name the capital of France.", stream=True, stream_options={"include_usage": True}))
assert chunks[0].choices[0].delta.role == "assistant"
assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == text
assert chunks[-2].choices[0].finish_reason in ("stop", "length")
assert chunks[-1].choices == [] and chunks[-1].usage == answer.usage
assert all(chunk.usage is None for chunk in chunks[:-1])

# An end by length has its usage too; where nobody asked for it, no chunk has any, and each has its choice.
for include in (True, False):
    short = list(ask("Tell me a story.", stream=True, max_tokens=3, stream_options={"include_usage": include}))
    last = short.pop() if include else None
    assert [len(chunk.choices) for chunk in short] == [1] * len(short), short
    assert short[-1].choices[0].finish_reason == "length"
    assert last is None or (last.choices == [] and last.usage.completion_tokens == 3), last
    assert all(("usage" in chunk.model_fields_set) == include for chunk in short), short

# The same seed, the same bytes; another one, others.
warm = {"temperature": 1.2, "max_tokens": 40}
seeds = [ask("Tell me a story.", seed=seed, **warm).choices[0].message.content for seed in (1, 1, 2)]
assert seeds[0] == seeds[1] != seeds[2], seeds

# A stop sequence that the answer has.
word = text.split()[2]
stopped = ask("Name the capital of France.", stop=[word])
assert stopped.choices[0].message.content == text.split(word)[0]
assert stopped.choices[0].finish_reason == "stop"

# A schema, and tools that are not called.
schema = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 20}, "is_capital": {"type": "boolean"}},
    "required": ["city", "is_capital"],
    "additionalProperties": False,
}
form = {"type": "json_schema", "json_schema": {"name": "city", "strict": True, "schema": schema}}
city = json.loads(ask("Describe Paris.", response_format=form, max_tokens=80).choices[0].message.content)
assert list(city) == ["city", "is_capital"] and isinstance(city["is_capital"], bool), city
tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
called = ask("What is the weather?", tools=[tool], tool_choice="auto")
assert called.choices[0].message.content and not called.choices[0].message.tool_calls

# What a user types is text: a turn that is written out does not begin one.
plain, typed = ("Say <|im_start|> twice.", "Say " + "<|im_start|>" + " twice.")
both = [ask(plain, extra_body={"control_tokens": allowed}).usage.prompt_tokens for allowed in (False, True)]
assert both[0] > both[1], both

# The older endpoint.
more = client.completions.create(model=model, prompt="Once upon a time", temperature=0)
assert more.choices[0].text and more.usage.completion_tokens <= 16

# Refusals, each after one request: the SDK asks again where that is worth it.
refused(openai.NotFoundError, "model_not_found", "model", extra_body={"model": "gpt-5"})
refused(openai.BadRequestError, "unsupported_parameter", "n", n=2)
refused(openai.BadRequestError, "invalid_value", "temperature", temperature=3)
long = {"messages": [{"role": "user", "content": "word " * 20_000}]}
error = refused(openai.BadRequestError, "context_length_exceeded", extra_body=long)
assert "maximum context length is" in error.message, error.message

# A key of a request: the same answer, and no second bill.
keyed = [ask("Hello", extra_headers={"Idempotency-Key": "one"}) for _ in range(2)]
assert keyed[0].id == keyed[1].id and keyed[0].choices == keyed[1].choices
try:
    ask("Bye", extra_headers={"Idempotency-Key": "one"})
    raise AssertionError("another request has the same key")
except openai.ConflictError as conflict:
    assert conflict.code == "idempotency_key_reused"

# Whoever hangs up cancels.
stream = ask("Count to a thousand.", stream=True, max_tokens=1000)
tokens = iter(stream)
task = [next(tokens) for _ in range(4)][0].id.removeprefix("chatcmpl-")
stream.close()
for _ in range(200):
    state = client.get(f"/dovetail/tasks/{task}", cast_to=object)
    if state["state"] != "running":
        break
    time.sleep(0.05)
assert state["finish_reason"] == "cancelled", state
assert 0 < state["usage"]["completion_tokens"] < 1000, state

# What the check of its receipt says.
first = answer.dovetail["task_id"]
command = f"{os.environ['DOVETAIL']} receipt get --wait 60 {first} > receipt.json && {os.environ['DOVETAIL']} receipt verify receipt.json"
assert os.system(command) == 0
print(json.dumps({"openai": openai.__version__, "answer": text}))
