//! The agents' doors. Each translates between its transport and [`crate::tasks`], and decides nothing.

pub(crate) mod grpc;
