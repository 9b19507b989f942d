"""What users of LangChain's ChatOpenAI do, against a pool whose model is SmolLM2. Run by main.rs."""

import importlib.metadata
import json
import os
import sys

# Nothing is told to LangChain's own service.
os.environ.update(LANGSMITH_TRACING="false", LANGCHAIN_TRACING_V2="false")

import openai
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, Field

base = sys.argv[1] + "/v1"
[model] = [entry.id for entry in openai.OpenAI(base_url=base, api_key="any word").models.list()]


def chat(**more):
    more = {"model": model, "temperature": 0, "max_tokens": 24, "timeout": 60, **more}
    return ChatOpenAI(base_url=base, api_key="any word", **more)


def refused(ask, kind, code):
    try:
        ask()
    except kind as error:
        assert error.code == code, error
        return error
    raise AssertionError("it is not refused")


# As it comes, nothing that it sends is refused.
plain = ChatOpenAI(base_url=base, api_key="any word", model=model)
assert plain.invoke("Hi").content

# Whole, and as a stream, with the same text and the same usage.
question = [SystemMessage("You are a helpful assistant."), HumanMessage("Name the capital of France.")]
answer = chat(include_response_headers=True).invoke(question)
assert "Paris" in answer.content, answer
usage, told = answer.usage_metadata, answer.response_metadata
assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"] and usage["output_tokens"] > 0
assert told["token_usage"]["cost_msat"] == 1_000 * usage["output_tokens"], told
streamed = None
for chunk in chat(stream_usage=True).stream(question):
    streamed = chunk if streamed is None else streamed + chunk
assert (streamed.content, streamed.usage_metadata) == (answer.content, usage), streamed
assert streamed.response_metadata["finish_reason"] == told["finish_reason"] == "stop"

# The same seed, the same bytes; another one, others.
warm = {"temperature": 1.2, "max_tokens": 40}
seeds = [chat(seed=seed, **warm).invoke("Tell me a story.").content for seed in (1, 1, 2)]
assert seeds[0] == seeds[1] != seeds[2], seeds

# A stop sequence that the answer has, and an end by length.
word = answer.content.split()[2]
stopped = chat(stop=[word]).invoke(question)
assert stopped.content == answer.content.split(word)[0], stopped
short = chat(max_tokens=2).invoke(question)
assert short.response_metadata["finish_reason"] == "length" and short.usage_metadata["output_tokens"] == 2


class City(BaseModel):
    """A city."""

    name: str = Field(max_length=20)
    is_capital: bool


# An object of a class, by its schema.
city = chat(max_tokens=80).with_structured_output(City, method="json_schema").invoke("Describe Paris.")
assert isinstance(city, City) and city.name, city


@tool
def weather(city: str) -> str:
    """The weather of a city."""
    return "fine"


# This model's template has no place for tools: it answers in text, and whoever insists on a call is refused.
called = chat().bind_tools([weather]).invoke("What is the weather in Paris?")
assert called.content and not called.tool_calls, called
insists = chat().bind_tools([weather], tool_choice="weather")
error = refused(lambda: insists.invoke("What is the weather in Paris?"), openai.BadRequestError, "unsupported_parameter")
assert error.param == "tool_choice", error

# Refusals keep their codes.
refused(lambda: chat().invoke("word " * 20_000), openai.BadRequestError, "context_length_exceeded")
refused(lambda: chat(n=2).invoke("Hello"), openai.BadRequestError, "unsupported_parameter")
refused(lambda: chat(model="gpt-5").invoke("Hello"), openai.NotFoundError, "model_not_found")

# The headers name the task, and with it the receipt.
headers = told["headers"]
task = headers["x-request-id"]
assert told["id"] == f"chatcmpl-{task}" and headers["x-dovetail-receipt"].endswith(task)
command = f"{os.environ['DOVETAIL']} receipt get --wait 60 {task} > receipt.json && {os.environ['DOVETAIL']} receipt verify receipt.json"
assert os.system(command) == 0
print(json.dumps({"langchain-openai": importlib.metadata.version("langchain-openai"), "answer": answer.content}))
