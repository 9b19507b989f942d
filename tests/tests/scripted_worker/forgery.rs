//! What a worker computes, honestly or not: outputs, transcripts, batches, and the cheaper models that
//! a cheat would rather run.

use std::sync::Arc;

use dovetail_commitment::{
    Batch, BatchRoot, TaskId, Transcript, WorkerKey, output_digest, prompt_commitment, trace_root,
};
use dovetail_engine::{ENGINE_VERSION, Model, Output, Request, Runtime, run, tiny};
use dovetail_sv2::extension::AssignTask;

/// The model that cheats are asked to run, and what they run instead.
pub(crate) struct Models {
    /// What is asked for.
    pub(crate) asked: Arc<Model>,
    /// As large, with other weights.
    pub(crate) other: Arc<Model>,
    /// A layer of three.
    pub(crate) smaller: Arc<Model>,
    /// The same weights in four bits.
    pub(crate) coarser: Arc<Model>,
}

impl Models {
    /// The cheaper models of the tiny model of seed 1.
    pub(crate) fn of(asked: Arc<Model>) -> Self {
        let arch = asked.manifest().architecture;
        let load = |parts: dovetail_engine::Parts| {
            Arc::new(Model::from_bytes(&parts.to_bytes().unwrap()).unwrap())
        };
        let mut layers = arch;
        layers.layers = 1;
        let smaller = tiny::parts(layers, "smaller", 1).unwrap();
        let mut coarser = tiny::parts(arch, "coarser", 1).unwrap();
        for (name, bytes) in &mut coarser.tensors {
            if name.ends_with("weight") {
                for weight in bytes.iter_mut() {
                    *weight = (weight.cast_signed() / 16 * 16).cast_unsigned();
                }
            }
        }
        let other = Model::from_bytes(&tiny::generate(2)).unwrap();
        Self {
            asked,
            other: Arc::new(other),
            smaller: load(smaller),
            coarser: load(coarser),
        }
    }
}

/// What the engine is asked for a task: the tokens are the pool's.
pub(crate) fn request(task: &AssignTask) -> Request {
    Request {
        prompt_tokens: task.prompt.tokens().to_vec(),
        sampling: task.sampling,
        seed: task.seed,
        stop: task.stop.clone(),
        constraint: task.constraint.clone(),
    }
}

/// The output of a request on a model.
pub(crate) fn computed(model: &Arc<Model>, request: Request) -> Output {
    run(&Runtime::new(1).unwrap(), model, request).unwrap()
}

/// What an honest worker computes for the task, if `model` is the one that was asked for.
pub(crate) fn honest(model: &Arc<Model>, task: &AssignTask) -> Output {
    computed(model, request(task))
}

/// The output for the task with its request changed.
pub(crate) fn rewritten(
    model: &Arc<Model>,
    task: &AssignTask,
    change: impl FnOnce(&mut Request),
) -> Output {
    let mut request = request(task);
    change(&mut request);
    computed(model, request)
}

/// The transcript that says that `worker` computed `output` for the task as it was assigned.
pub(crate) fn transcript(worker: WorkerKey, task: &AssignTask, output: &Output) -> Transcript {
    Transcript {
        task_id: task.task_id,
        worker_key: worker,
        model_id: task.model_id,
        engine_version: ENGINE_VERSION,
        prompt_commitment: prompt_commitment(
            &task.salt,
            &task.stop,
            task.constraint.as_ref(),
            &task.prompt,
        ),
        sampling: task.sampling,
        seed: task.seed,
        output_tokens: u32::try_from(output.tokens.len()).unwrap(),
        output_digest: output_digest(&output.tokens),
        trace_root: trace_root(&output.trace),
        finish_reason: output.finish_reason,
    }
}

/// A batch as it is registered.
#[derive(Debug, Clone)]
pub(crate) struct TestBatch {
    /// Its root.
    pub(crate) root: BatchRoot,
    /// Its tasks, in the order of the leaves.
    pub(crate) tasks: Vec<TaskId>,
}

/// The batch of these transcripts.
pub(crate) fn batch_of(transcripts: &[Transcript]) -> TestBatch {
    let leaves = transcripts.iter().map(Transcript::leaf).collect();
    TestBatch {
        root: Batch::new(leaves).unwrap().root(),
        tasks: transcripts.iter().map(|of| of.task_id).collect(),
    }
}
