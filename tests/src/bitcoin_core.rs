//! Bitcoin Core on regtest, as a part of a scenario.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::ensure;
use serde_json::json;

use crate::free_port;
use crate::process::{Daemon, STEP_TIME_MAX, output, wait};

/// The programs of Bitcoin Core.
#[derive(Debug, Clone)]
pub struct CoreParts {
    /// `bitcoin-node`, 31 or newer.
    pub bitcoin_node: PathBuf,
    /// `bitcoin-cli`.
    pub bitcoin_cli: PathBuf,
}

impl CoreParts {
    /// The programs that `cargo xtask test` names in the environment.
    ///
    /// # Errors
    /// Says how to run the test instead.
    pub fn from_environment() -> anyhow::Result<Self> {
        Ok(Self {
            bitcoin_node: crate::needed("DOVETAIL_BITCOIN_NODE")?,
            bitcoin_cli: crate::needed("DOVETAIL_BITCOIN_CLI")?,
        })
    }
}

/// Nobody's: what is mined to it belongs to nobody in a test.
pub const OTHERS_ADDRESS: &str = "bcrt1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqdku202";

/// The wallet that test pools pay from on the chain. BIP 32's first test vector, as test networks write it: never for real use.
pub const ONCHAIN_DESCRIPTOR: &str = "wpkh(tprv8ZgxMBicQKsPeDgjzdC36fs6bMjGApWDNLR9erAXMs5skhMv36j9MV5ecvfavji5khqjWaWSFhN3YcCUUdiKH6isR4Pwy3U5y5egddBr16m/0/*)";

/// A block's hash as Core names it, from the hex digits that the ledger has, or the reverse: the last byte comes first.
pub fn turned(hash: &str) -> String {
    let bytes = (0..hash.len()).step_by(2).rev();
    bytes.filter_map(|at| hash.get(at..at + 2)).collect()
}

pub(crate) const RPC_USER: &str = "dovetail";
pub(crate) const RPC_PASSWORD: &str = "regtest-only";

/// A Bitcoin Core that runs.
pub struct BitcoinCore {
    daemon: Daemon,
    cli: PathBuf,
    data: PathBuf,
    rpc_port: u16,
}

impl BitcoinCore {
    /// Starts a node in `data` that serves IPC and RPC, with one block so that it has left initial
    /// block download.
    ///
    /// # Errors
    /// If it does not start.
    pub fn start(parts: &CoreParts, data: &Path, logs: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(data)?;
        let rpc_port = free_port()?;
        let mut command = Command::new(&parts.bitcoin_node);
        command
            .args([
                "-regtest",
                "-ipcbind=unix",
                "-listen=0",
                "-server",
                "-printtoconsole=0",
            ])
            .arg(format!("-datadir={}", data.display()))
            .arg(format!("-rpcport={rpc_port}"))
            .arg(format!("-rpcuser={RPC_USER}"))
            .arg(format!("-rpcpassword={RPC_PASSWORD}"));
        let core = Self {
            daemon: Daemon::spawn("bitcoin-node", command, logs)?,
            cli: parts.bitcoin_cli.clone(),
            data: data.to_owned(),
            rpc_port,
        };
        wait("Bitcoin Core's RPC", || {
            Ok(core.rpc(&["getblockcount"]).is_ok())
        })?;
        Ok(core)
    }

    /// The data folder.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The IPC socket.
    pub fn socket(&self) -> PathBuf {
        self.data.join("regtest").join("node.sock")
    }

    /// The `[templates]` section of a daemon on this node.
    pub(crate) fn templates_config(&self) -> String {
        format!(
            "kind = \"bitcoin-core\"\nsocket = \"{}\"\n",
            self.socket().display()
        )
    }

    /// The `[onchain]` section of a pool that pays on this node's chain from [`ONCHAIN_DESCRIPTOR`], with further keys.
    pub(crate) fn onchain_config(&self, keys: &str) -> String {
        format!(
            "[onchain]\nrpc = \"{}\"\nuser_password = \"{}\"\ndescriptor = \"{ONCHAIN_DESCRIPTOR}\"\n{keys}\n",
            self.rpc_address(),
            self.rpc_credentials()
        )
    }

    /// One RPC; returns its result as text.
    ///
    /// # Errors
    /// If the node refuses.
    pub fn rpc(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let said = output(
            Command::new(&self.cli)
                .arg("-regtest")
                .arg(format!("-datadir={}", self.data.display()))
                .arg(format!("-rpcport={}", self.rpc_port))
                .arg(format!("-rpcuser={RPC_USER}"))
                .arg(format!("-rpcpassword={RPC_PASSWORD}"))
                .args(arguments),
        )?;
        Ok(said.trim().to_owned())
    }

    /// Mines blocks that pay `address`.
    ///
    /// # Errors
    /// If the node refuses.
    pub fn mine(&self, blocks: u32, address: &str) -> anyhow::Result<()> {
        self.rpc(&["generatetoaddress", &blocks.to_string(), address])?;
        Ok(())
    }

    /// Mines a block that pays `address`, with no program started in between: what stands before the request on the wire is
    /// `ordered`, for who measures how long the block takes to be heard of.
    ///
    /// # Errors
    /// If the node refuses, or `ordered` does.
    pub fn mine_when_ordered(
        &self,
        address: &str,
        ordered: impl FnOnce() -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let body = json!({ "method": "generatetoaddress", "params": [1, address] }).to_string();
        let request = format!(
            "POST / HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic {}\r\n\
             Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
            base64(self.rpc_credentials().as_bytes()),
            body.len()
        );
        let mut stream = TcpStream::connect(self.rpc_address())?;
        stream.set_read_timeout(Some(STEP_TIME_MAX))?;
        ordered()?;
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        ensure!(
            answer.starts_with("HTTP/1.1 200"),
            "the node answered {answer}"
        );
        Ok(())
    }

    /// What its RPC knows its caller by, as a cookie file has it.
    pub fn rpc_credentials(&self) -> String {
        format!("{RPC_USER}:{RPC_PASSWORD}")
    }

    /// Where its RPC listens.
    pub fn rpc_address(&self) -> String {
        format!("127.0.0.1:{}", self.rpc_port)
    }

    /// The process, for its log and id.
    pub fn daemon(&mut self) -> &mut Daemon {
        &mut self.daemon
    }
}

/// As RFC 4648 has it, for HTTP's basic authentication.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = (0..3).fold(0_usize, |bits, at| {
            bits << 8 | usize::from(chunk.get(at).copied().unwrap_or(0))
        });
        for place in 0..4 {
            let digit = DIGITS[bits >> (18 - 6 * place) & 0x3f];
            let is_there = place <= chunk.len();
            text.push(if is_there { char::from(digit) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_turned_byte_by_byte() {
        assert_eq!(turned("0a0b0c"), "0c0b0a");
        assert_eq!(turned(""), "");
    }

    #[test]
    fn base64_is_that_of_the_rfcs_vectors() {
        let vectors = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
        ];
        for (text, encoded) in vectors {
            assert_eq!(base64(text.as_bytes()), encoded);
        }
    }
}
