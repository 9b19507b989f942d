//! A relay between a client and the pool, which passes every byte on and keeps what the pool answers: so that a test can compare what a
//! client prints with what it was sent.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::Value;

/// It relays until the test's process ends.
pub(crate) struct Tap {
    port: u16,
    answers: Arc<Mutex<Vec<u8>>>,
}

/// An answer, as a stream or as a refusal.
pub(crate) struct Taken {
    pub(crate) status: u16,
    /// The id of its task, where it has one.
    pub(crate) task: String,
    pub(crate) text: String,
    /// What its last chunk says of its usage.
    pub(crate) usage: Value,
}

impl Tap {
    /// A relay to this pool.
    pub(crate) fn before(pool: &str) -> Self {
        let pool = pool.trim_start_matches("http://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let answers = Arc::default();
        let kept = Arc::clone(&answers);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                relay(client.unwrap(), TcpStream::connect(&pool).unwrap(), &kept);
            }
        });
        Self { port, answers }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The answers since the last call.
    pub(crate) fn taken(&self) -> Vec<Taken> {
        let bytes = std::mem::take(&mut *self.answers.lock().unwrap());
        let text = String::from_utf8(bytes).unwrap();
        let answers = text.split("HTTP/1.1 ").skip(1);
        answers.map(Taken::read).collect()
    }
}

impl Taken {
    fn read(answer: &str) -> Self {
        let (status, _) = answer.split_once(' ').unwrap();
        let data = answer
            .lines()
            .filter_map(|line| line.strip_prefix("data: "));
        let chunks = data.filter(|data| *data != "[DONE]");
        let chunks: Vec<Value> = chunks
            .map(|data| serde_json::from_str(data).unwrap())
            .collect();
        let pieces = chunks
            .iter()
            .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str());
        let last = chunks.last().unwrap_or(&Value::Null);
        Self {
            status: status.parse().unwrap(),
            task: last["dovetail"]["task_id"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
            text: pieces.collect(),
            usage: last["usage"].clone(),
        }
    }
}

fn relay(client: TcpStream, pool: TcpStream, kept: &Arc<Mutex<Vec<u8>>>) {
    let (mut from_client, mut to_client) = (client.try_clone().unwrap(), client);
    let (mut from_pool, mut to_pool) = (pool.try_clone().unwrap(), pool);
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from_client, &mut to_pool);
        let _ = to_pool.shutdown(Shutdown::Write);
    });
    let kept = Arc::clone(kept);
    std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(read @ 1..) = from_pool.read(&mut bytes) {
            // Kept first: a client that has it all may be done.
            kept.lock().unwrap().extend_from_slice(&bytes[..read]);
            if to_client.write_all(&bytes[..read]).is_err() {
                break;
            }
        }
        let _ = to_client.shutdown(Shutdown::Both);
    });
}
