//! LoRA adapters in PEFT's layout: a merged import is the import of the merged checkpoint.
#![allow(clippy::unwrap_used)]

mod test_support;

use std::path::Path;

use dovetail_models::{ImportError, ImportOptions, Imported, import};
use safetensors::Dtype;
use serde_json::{Value, json};
use test_support::gguf::Gguf;
use test_support::{Random, Recipe, Tensors, write_safetensors};

const RANK: usize = 4;
/// alpha / r.
const SCALE: f64 = 2.0;
const MODULES: [&str; 3] = [
    "model.layers.0.self_attn.q_proj",
    "model.layers.1.mlp.down_proj",
    "lm_head",
];

fn options(adapter: Option<&Path>) -> ImportOptions {
    ImportOptions {
        name: Some("merged".to_owned()),
        adapter: adapter.map(Path::to_owned),
        ..ImportOptions::default()
    }
}

fn merged(path: &Path, adapter: Option<&Path>) -> Result<Imported, ImportError> {
    import(path, &options(adapter), &mut |_| {})
}

/// The tensors of an adapter for these matrices.
fn adapter(base: &Tensors, modules: &[&str]) -> Tensors {
    let mut random = Random::new(3);
    let mut tensors = Tensors::new();
    for module in modules {
        let shape = &base[&format!("{module}.weight")].0;
        let mut put = |part: &str, tensor| {
            tensors.insert(format!("base_model.model.{module}.{part}.weight"), tensor);
        };
        put("lora_A", random.matrix(RANK, shape[1], 0.2));
        put("lora_B", random.matrix(shape[0], RANK, 0.2));
    }
    tensors
}

fn write_adapter(folder: &Path, tensors: &Tensors, settings: &Value) {
    let mut config = json!({
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": 8, "bias": "none",
        "target_modules": ["q_proj", "down_proj"], "use_dora": false,
    });
    for (key, value) in settings.as_object().unwrap() {
        config[key] = value.clone();
    }
    std::fs::write(folder.join("adapter_config.json"), config.to_string()).unwrap();
    write_safetensors(
        &folder.join("adapter_model.safetensors"),
        tensors,
        Dtype::F32,
    );
}

/// The checkpoint's tensors with the adapter's product added, as plainly as it can be written.
fn added(base: &Tensors, adapter: &Tensors) -> Tensors {
    let mut tensors = base.clone();
    for module in MODULES {
        let (shape, values) = tensors.get_mut(&format!("{module}.weight")).unwrap();
        let part = |part: &str| &adapter[&format!("base_model.model.{module}.{part}.weight")].1;
        let (a, b, columns) = (part("lora_A"), part("lora_B"), shape[1]);
        for (place, value) in values.iter_mut().enumerate() {
            let (row, column) = (place / columns, place % columns);
            let products = (0..RANK)
                .map(|k| f64::from(b[row * RANK + k]) * f64::from(a[k * columns + column]));
            let sum = products.fold(0.0, |sum, product| sum + product);
            *value = (f64::from(*value) + SCALE * sum) as f32;
        }
    }
    tensors
}

#[test]
fn an_import_with_an_adapter_is_the_import_of_the_merged_checkpoint() {
    let recipe = Recipe::default();
    let base = recipe.tensors();
    let tensors = adapter(&base, &MODULES);
    let [checkpoint, whole, lora] = [(); 3].map(|()| tempfile::tempdir().unwrap());
    recipe.write(checkpoint.path());
    recipe.write_config(whole.path());
    recipe.write_tensors(whole.path(), &added(&base, &tensors));
    write_adapter(lora.path(), &tensors, &json!({}));

    let ours = merged(checkpoint.path(), Some(lora.path())).unwrap();
    let expected = merged(whole.path(), None).unwrap();
    assert_eq!(ours.parts.id().unwrap(), expected.parts.id().unwrap());
    let plain = merged(checkpoint.path(), None).unwrap();
    assert_ne!(ours.parts.id().unwrap(), plain.parts.id().unwrap());
    let report = ours.report.adapter.clone().unwrap();
    assert_eq!((report.rank, report.matrices), (RANK, 3));
    assert!((report.scale - SCALE).abs() < 1e-12);

    // llama.cpp turns the rows of queries and keys; the adapter's are those of the checkpoint.
    let path = checkpoint.path().join("same.gguf");
    Gguf::of(&recipe, &base, false).write(&path);
    let gguf = merged(&path, Some(lora.path())).unwrap();
    let same = |imported: &Imported| imported.parts.tensors.clone();
    assert_eq!(same(&gguf), same(&ours));
}

#[test]
fn an_adapter_that_does_not_fit_is_refused() {
    let recipe = Recipe::default();
    let base = recipe.tensors();
    let fitting = adapter(&base, &MODULES);
    let checkpoint = tempfile::tempdir().unwrap();
    recipe.write(checkpoint.path());
    let refusal = |tensors: &Tensors, settings: Value| {
        let lora = tempfile::tempdir().unwrap();
        write_adapter(lora.path(), tensors, &settings);
        let error = merged(checkpoint.path(), Some(lora.path())).unwrap_err();
        error.to_string()
    };
    let name = |part: &str| format!("base_model.model.{}.{part}.weight", MODULES[0]);

    assert!(refusal(&fitting, json!({ "use_dora": true })).contains("use_dora"));
    assert!(refusal(&fitting, json!({ "r": 8 })).contains("has the shape"));
    let mut half = fitting.clone();
    half.remove(&name("lora_B"));
    assert!(refusal(&half, json!({})).contains("only one of the two"));
    let mut magnitude = fitting.clone();
    let vector = name("lora_magnitude_vector");
    magnitude.insert(vector.clone(), (vec![64], vec![1.0; 64]));
    assert!(refusal(&magnitude, json!({})).contains(&vector));
    let mut other = fitting.clone();
    for part in ["lora_A", "lora_B"] {
        let tensor = other.remove(&name(part)).unwrap();
        let name = format!("base_model.model.model.norm.{part}.weight");
        other.insert(name, tensor);
    }
    assert!(refusal(&other, json!({})).contains("model.norm.weight"));
    let mut huge = fitting.clone();
    huge.get_mut(&name("lora_A")).unwrap().1[0] = f32::MAX;
    huge.get_mut(&name("lora_B")).unwrap().1[0] = f32::MAX;
    assert!(refusal(&huge, json!({})).contains("no finite number"));
    assert!(refusal(&Tensors::new(), json!({})).contains("no tensors"));
}

#[test]
fn an_adapter_asks_for_a_name_and_for_its_files() {
    let checkpoint = tempfile::tempdir().unwrap();
    Recipe::default().write(checkpoint.path());
    let lora = tempfile::tempdir().unwrap();
    let unnamed = ImportOptions {
        name: None,
        ..options(Some(lora.path()))
    };
    let error = import(checkpoint.path(), &unnamed, &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("--name"), "{error}");

    let error = merged(checkpoint.path(), Some(lora.path())).unwrap_err();
    assert!(error.to_string().contains("adapter_config.json"), "{error}");
    let config = json!({ "peft_type": "LORA", "r": 4, "lora_alpha": 8 });
    std::fs::write(lora.path().join("adapter_config.json"), config.to_string()).unwrap();
    std::fs::write(lora.path().join("adapter_model.bin"), "").unwrap();
    let error = merged(checkpoint.path(), Some(lora.path())).unwrap_err();
    assert!(matches!(error, ImportError::OtherForm { .. }), "{error}");
}
