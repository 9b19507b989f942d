//! `dovetail-worker chat`: a conversation with a model on this machine, without a pool. The tokens are those
//! that a task with the same prompt, sampling and seed gives.

mod answer;
pub(super) mod conversation;
pub(super) mod input;
mod interrupt;

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use clap::Args;
use dovetail_commitment::OUTPUT_TOKENS_MAX;
use dovetail_console::{
    ConstraintArguments, OutputError, Printer, SamplingArguments, print_line, print_note,
    print_notes,
};
use dovetail_engine::{EngineError, Model, Request, Runtime};

use self::answer::{Answer, AnswerError, Answerer};
use self::conversation::Conversation;
use self::input::{FENCE, Input};
use self::interrupt::Interrupt;
use crate::cli::model_choice::ModelChoice;

/// Stands before what people type.
const PROMPT: &str = "> ";
/// The same in a message of several lines.
const PROMPT_MORE: &str = ". ";

/// Talk to a model in this terminal. Lines are messages; where they come from a pipe, each is answered in its turn.
#[derive(Debug, Args)]
pub(crate) struct ChatArguments {
    #[command(flatten)]
    model: ModelChoice,
    /// An instruction that stands before the conversation, where the model's chat template has a place for one.
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Longest answer, in tokens; left out: as long as the context has room.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(OUTPUT_TOKENS_MAX)))]
    max_tokens: Option<u32>,
    #[command(flatten)]
    sampling: SamplingArguments,
    #[command(flatten)]
    constraint: ConstraintArguments,
    /// Threads; 0: one per core. They do not change a bit of the answers.
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Take all of the input as one message, such as a file, and end with its answer.
    #[arg(long)]
    whole: bool,
    /// Print one JSON object for each answer instead of streaming text.
    #[arg(long)]
    json: bool,
}

/// Loads the model and talks. Must be called inside a tokio runtime, on a thread that may block.
pub(crate) fn run(arguments: &ChatArguments) -> anyhow::Result<()> {
    let stop = arguments.sampling.stop()?;
    let constraint = arguments.constraint.constraint()?;
    let model = Arc::new(arguments.model.load()?);
    // Before anything is typed.
    if let Some(constraint) = &constraint {
        model.check_constraint(constraint)?;
    }
    let conversation = Conversation::new(&model, arguments.system.clone())?;
    let runtime = Runtime::new(arguments.threads)?;
    let is_interactive = io::stdin().is_terminal() && !arguments.whole;
    if is_interactive {
        greet(&model, &runtime);
    }
    let max_tokens = arguments.max_tokens.unwrap_or(OUTPUT_TOKENS_MAX);
    let mut chat = ChatSession {
        answerer: Answerer::new(model, runtime, Interrupt::listen(is_interactive)),
        request: Request {
            prompt_tokens: Vec::new(),
            sampling: arguments.sampling.params(max_tokens),
            seed: [0; 32],
            stop,
            constraint,
        },
        arguments,
        conversation,
        is_interactive,
    };
    if arguments.whole {
        let message = input::whole(&mut io::stdin().lock())?;
        return chat.reply(message.context("the input is empty")?);
    }
    chat.talk()
}

fn greet(model: &Model, runtime: &Runtime) {
    print_note(format_args!(
        "[{}, context of {} tokens, {} on {} threads; /help says what can be typed]",
        model.name(),
        model.context_tokens(),
        runtime.kernel().name(),
        runtime.threads()
    ));
    if model.manifest().chat_template.is_empty() {
        print_note("[the model has no chat template: it sees each message alone]");
    }
}

struct ChatSession<'a> {
    arguments: &'a ChatArguments,
    answerer: Answerer,
    conversation: Conversation,
    /// What all answers have in common; prompt and seed are filled in.
    request: Request,
    is_interactive: bool,
}

impl ChatSession<'_> {
    fn talk(&mut self) -> anyhow::Result<()> {
        let is_interactive = self.is_interactive;
        let ask = |goes_on| {
            if is_interactive {
                prompt(if goes_on { PROMPT_MORE } else { PROMPT });
            }
        };
        loop {
            match input::next(&mut io::stdin().lock(), ask)? {
                Input::Message(message) => match self.reply(message) {
                    Ok(()) => {}
                    // Somebody at a terminal can do something about it.
                    Err(error) if self.is_interactive => print_note(format_args!("[{error:#}]")),
                    Err(error) => return Err(error),
                },
                Input::Reset => self.conversation.reset(),
                Input::Help => help(),
                Input::Quit => break,
                Input::Unknown(command) => {
                    print_note(format_args!(
                        "[no command {command}; /help lists them, and // begins a message with a slash]"
                    ));
                }
            }
        }
        if self.is_interactive {
            print_note("");
        }
        Ok(())
    }

    /// Answers a message. One that gets no answer is forgotten.
    fn reply(&mut self, message: Vec<u8>) -> anyhow::Result<()> {
        ensure!(!message.is_empty(), "the message is empty");
        self.conversation.ask(message);
        match self.answer() {
            Ok(answer) if !answer.output.tokens.is_empty() || !answer.is_stopped() => {
                self.conversation.answer(&answer.text);
                if answer.is_stopped() && !self.is_interactive {
                    bail!("stopped");
                }
                Ok(())
            }
            Ok(_) => {
                self.conversation.take_back();
                if self.is_interactive {
                    Ok(())
                } else {
                    bail!("stopped")
                }
            }
            Err(error) => {
                self.conversation.take_back();
                Err(error)
            }
        }
    }

    fn answer(&mut self) -> anyhow::Result<Answer> {
        let seed = self.arguments.sampling.seed;
        let request = Request {
            prompt_tokens: self.conversation.prompt(&self.answerer.model)?,
            seed: seed.map_or_else(rand::random, |seed| seed.0),
            ..self.request.clone()
        };
        let seed = request.seed;
        let mut printer = (!self.arguments.json).then(Printer::stdout);
        let answered = self.answerer.answer(request, |bytes| match &mut printer {
            Some(printer) => printer.write(bytes),
            None => Ok(()),
        });
        let answer = answered.map_err(|error| self.explain(error))?;
        match &mut printer {
            Some(printer) => {
                printer.finish().map_err(OutputError::from)?;
                // A terminal has its line's end already.
                if !self.arguments.whole && !io::stdout().is_terminal() {
                    print_line("")?;
                }
                print_note(answer.describe());
            }
            None => print_line(answer.to_json(&seed))?,
        }
        Ok(answer)
    }

    fn explain(&self, error: AnswerError) -> anyhow::Error {
        let too_long = matches!(
            error,
            AnswerError::Engine(EngineError::PromptTooLong { .. })
        );
        let error = anyhow::Error::from(error);
        match (too_long, self.conversation.is_new()) {
            (false, _) => error,
            (true, true) => error.context("the message does not fit the model's context; shorten it"),
            (true, false) => error.context(
                "the conversation does not fit the model's context any more; /reset begins a new one",
            ),
        }
    }
}

fn help() {
    print_notes(format_args!(
        "[a line is a message; a line of {FENCE} begins and ends one of several lines; // begins one with a slash\n\
         /reset  forgets the conversation so far, but not --system\n\
         /help   says this\n\
         /quit   ends the program, as Ctrl-D does; Ctrl-C ends an answer]"
    ));
}

/// Shows what is not the end of a line.
pub(super) fn prompt(text: &str) {
    let mut stderr = io::stderr().lock();
    // Nobody may be looking.
    let _ = stderr
        .write_all(text.as_bytes())
        .and_then(|()| stderr.flush());
}
