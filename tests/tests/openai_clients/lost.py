"""A stream whose worker is killed in the middle, as OpenAI's package for Python sees it. Run by main.rs, which kills the worker."""

import sys

import openai

client = openai.OpenAI(base_url=sys.argv[1] + "/v1", api_key="any word", timeout=60)
[model] = [entry.id for entry in client.models.list()]
messages = [{"role": "user", "content": "Count."}]
# An answer that is long, whatever the model would say.
schema = {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 9}, "minItems": 300, "maxItems": 400}
form = {"type": "json_schema", "json_schema": {"name": "digits", "schema": schema}}
more = {"temperature": 0, "max_tokens": 600, "response_format": form, "stream": True}
stream = client.chat.completions.create(model=model, messages=messages, **more)
reasons, text = [], ""
try:
    for chunk in stream:
        [choice] = chunk.choices
        reasons.append(choice.finish_reason)
        if choice.delta.content and not text:
            print("streaming", flush=True)
        text += choice.delta.content or ""
except openai.APIError as error:
    assert error.code == "worker_lost", error
else:
    raise AssertionError("it ends as if it were whole")
assert text and set(reasons) == {None}, reasons
