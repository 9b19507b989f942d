//! What agents speak to. Each transport translates between its messages and [`crate::tasks`], and decides nothing.

pub(crate) mod grpc;
