//! A copy of what a bridge and its node give away for the day on which the machine is lost.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use dovetail_lightning::{Backup, Channel};
use serde::Serialize;

use crate::node::NodeBackup;
use crate::records::Records;

/// What goes with every backup.
const NOTE: &str = include_str!("backup.txt");

#[derive(Serialize)]
struct ChannelList<'a> {
    node_id: &'a str,
    channels: Vec<Channel>,
}

/// Writes a backup into a new folder.
pub(crate) fn write(
    folder: &Path,
    node_id: &str,
    channels: Vec<Channel>,
    of_node: &NodeBackup,
    records: &Records,
) -> io::Result<Backup> {
    DirBuilder::new().mode(0o700).create(folder)?;
    write_new(&folder.join(of_node.name), &of_node.bytes)?;
    let list = ChannelList { node_id, channels };
    write_new(
        &folder.join("channels.json"),
        &serde_json::to_vec_pretty(&list)?,
    )?;
    let note = format!("{NOTE}\n{}", of_node.note);
    write_new(&folder.join("READ-ME-FIRST.txt"), note.as_bytes())?;
    let attempts = folder.join("attempts");
    DirBuilder::new().mode(0o700).create(&attempts)?;
    let copied = records.copy_to(&attempts)?;
    File::open(&attempts)?.sync_all()?;
    File::open(folder)?.sync_all()?;
    Ok(Backup {
        folder: folder.to_owned(),
        attempts: copied,
        channels: list.channels.len(),
    })
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
