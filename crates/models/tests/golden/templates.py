"""Conversations as jinja2 renders them with the chat templates of the npm package `@huggingface/ollama-utils`.

    templates.py PACKAGE_FOLDER > FILE      (`cargo xtask test` does it; needs the Python package jinja2)

The environment is the one that transformers sets up for chat templates. Prints the conversations, and the templates: each with its
name, its text and the prompt that each conversation becomes, or null where jinja2 refuses it.
"""

import ast
import datetime
import json
import pathlib
import re
import sys

from jinja2 import nodes
from jinja2.exceptions import TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

# The moment that the other side renders with: 2024-07-26 12:00:00 UTC.
NOW = datetime.datetime(2024, 7, 26, 12, 0, 0)

# One template of the package's table: text in quotes, on one line.
ENTRY = re.compile(
    r"""^\t\tmodel: "(.*?)",\n\t\tgguf:\s*("(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')""",
    re.MULTILINE,
)


def said(*turns, tools=None):
    turns = [turn if isinstance(turn, dict) else dict(zip(("role", "content"), turn)) for turn in turns]
    return {"messages": turns, "tools": tools}


WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "What the sky does over a <city> & \"why\".",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "altitude": {"type": "number", "minimum": 0.5}},
            "required": ["city"],
        },
    },
}
TIME = {"type": "function", "function": {"name": "time", "description": "It tells the time."}}


def call(number, name, **arguments):
    return {"id": f"call{number:05}", "type": "function", "function": {"name": name, "arguments": arguments}}


def calls(*called, content=""):
    return {"role": "assistant", "content": content, "tool_calls": list(called)}


def told(number, name, content):
    return {"role": "tool", "content": content, "tool_call_id": f"call{number:05}", "name": name}


CONVERSATIONS = [
    said(("user", "Hi")),
    said(
        ("system", " Be brief. "),
        ("user", "What is <b>2 + 2</b> & \"why\"?\n"),
        ("assistant", "4,\n because ü."),
        ("user", "  Thanks, bye!  "),
    ),
    said(
        ("user", "1"),
        ("assistant", "<think>\nhm\n</think>\n\n2"),
        ("user", '{"a": [1, 2.0]}'),
    ),
    said(("assistant", "I begin."), ("user", "No.")),
    said(("system", ""), ("user", "")),
    said(("user", "What is the weather?"), tools=[WEATHER, TIME]),
    said(
        ("system", "Be brief."),
        ("user", "How is Köln?"),
        calls(call(1, "weather", city="Köln", altitude=53.5)),
        told(1, "weather", '{"sky": "grey"}'),
        ("assistant", "Grey."),
        ("user", "And when?"),
        tools=[WEATHER, TIME],
    ),
    said(
        ("user", "Both?"),
        calls(call(1, "weather", city="Bonn"), call(2, "time"), content="I look."),
        told(1, "weather", "blue"),
        told(2, "time", "noon"),
        tools=[TIME, WEATHER],
    ),
]


class Generation(Extension):
    """Marks for training what the assistant says; in a prompt the content is all."""

    tags = {"generation"}

    def parse(self, parser):
        lineno = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return nodes.Scope(body, lineno=lineno)


def raise_exception(message):
    raise TemplateError(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(
        x,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def render(environment, template, conversation):
    try:
        return environment.from_string(template).render(
            messages=conversation["messages"],
            add_generation_prompt=True,
            bos_token="<s>",
            eos_token="</s>",
            tools=conversation["tools"],
            documents=None,
        )
    except Exception:
        return None


def main():
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = NOW.strftime
    table = pathlib.Path(sys.argv[1], "src", "chat-template-automap.ts")
    templates = [
        {
            "name": name,
            "template": template,
            "prompts": [render(environment, template, c) for c in CONVERSATIONS],
        }
        for name, quoted in ENTRY.findall(table.read_text(encoding="utf-8"))
        for template in [ast.literal_eval(quoted)]
    ]
    print(json.dumps({"conversations": CONVERSATIONS, "templates": templates}))


main()
