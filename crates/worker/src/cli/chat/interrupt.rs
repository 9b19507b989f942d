//! Ctrl-C: it ends an answer, not the conversation. Where nobody sits at a terminal it ends the program
//! too, as it does with any filter.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use dovetail_console::print_notes;

/// Whether Ctrl-C was pressed while an answer was on its way.
#[derive(Debug, Clone, Default)]
pub(crate) struct Interrupt {
    is_answering: Arc<AtomicBool>,
    is_pressed: Arc<AtomicBool>,
}

impl Interrupt {
    /// Takes Ctrl-C over from here on. Must be called inside a tokio runtime.
    pub(crate) fn listen(is_interactive: bool) -> Self {
        let interrupt = Self::default();
        let pressed = interrupt.clone();
        tokio::spawn(async move {
            // Without a handler the default action ends the process, which is a way to stop too.
            while tokio::signal::ctrl_c().await.is_ok() {
                if pressed.is_answering.load(Relaxed) {
                    pressed.is_pressed.store(true, Relaxed);
                } else if is_interactive {
                    // The terminal has thrown away what was typed.
                    print_notes("\n[/quit or Ctrl-D ends the program]");
                    super::prompt(super::PROMPT);
                } else {
                    std::process::exit(130); // what shells make of SIGINT
                }
            }
        });
        interrupt
    }

    /// An answer begins: from now on Ctrl-C is for it.
    pub(crate) fn begin(&self) {
        self.is_pressed.store(false, Relaxed);
        self.is_answering.store(true, Relaxed);
    }

    /// The answer is over.
    pub(crate) fn end(&self) {
        self.is_answering.store(false, Relaxed);
    }

    pub(crate) fn is_pressed(&self) -> bool {
        self.is_pressed.load(Relaxed)
    }
}
