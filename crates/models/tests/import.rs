//! Imported checkpoints run like the originals, and the same everywhere.
#![allow(clippy::unwrap_used)]

mod test_support;

use std::path::Path;

use dovetail_engine::{Model, Range, Runtime, Stored};
use dovetail_models::random::{self, Sizes};
use dovetail_models::{
    IMPORT_VERSION, ImportOptions, Imported, Quality, Sequence, import, quality, saturation_notes,
};
use test_support::{Random, Recipe, recipes};

fn imported(folder: &Path, options: &ImportOptions) -> Imported {
    import(folder, options, &mut |_| {}).unwrap()
}

fn model(imported: &Imported) -> Model {
    Model::from_bytes(&imported.parts.to_bytes().unwrap()).unwrap()
}

/// Imports and measures over some sequences of random tokens.
fn measure(recipe: &Recipe, options: &ImportOptions) -> Quality {
    measure_on(recipe, options, 6, 96)
}

/// The same over so many sequences of this length.
fn measure_on(recipe: &Recipe, options: &ImportOptions, count: usize, length: usize) -> Quality {
    let folder = tempfile::tempdir().unwrap();
    recipe.write(folder.path());
    measure_folder(folder.path(), options, count, length)
}

fn measure_folder(folder: &Path, options: &ImportOptions, count: usize, length: usize) -> Quality {
    let model = model(&imported(folder, options));
    let vocabulary = model.manifest().architecture.vocabulary;
    let mut random = Random::new(7);
    let sequences: Vec<_> = (0..count)
        .map(|_| Sequence {
            tokens: random.tokens(length, vocabulary),
            counted_from: 1,
        })
        .collect();
    let runtime = Runtime::new(1).unwrap();
    quality(folder, &runtime, &model, &sequences).unwrap()
}

#[test]
fn imported_models_say_what_the_originals_say() {
    for (name, recipe) in recipes() {
        let quality = measure(&recipe, &ImportOptions::default());
        eprintln!("{name}: {quality:?}");
        assert_eq!(quality.positions, 6 * 95, "{name}");
        assert!(quality.correlation > 0.999, "{name}: {quality:?}");
        assert!(quality.top1_agreement > 0.93, "{name}: {quality:?}");
        assert!(quality.perplexity_ratio() < 1.01, "{name}: {quality:?}");
    }
}

#[test]
fn a_final_gain_that_leaves_no_room_for_the_largest_shift_gets_a_smaller_one() {
    let recipe = Recipe {
        tied: true,
        ..Recipe::default()
    };
    let import_with = |gain: f32| {
        let folder = tempfile::tempdir().unwrap();
        let mut tensors = recipe.tensors();
        tensors.get_mut("model.norm.weight").unwrap().1.fill(gain);
        recipe.write_config(folder.path());
        recipe.write_tensors(folder.path(), &tensors);
        import(folder.path(), &ImportOptions::default(), &mut |_| {})
    };
    // A file holds gains of up to 1,024, and r multiplies them by 2^r.
    for (gain, shift_max) in [(100.0, 3), (200.0, 2), (500.0, 1), (1_000.0, 0)] {
        let imported = import_with(gain).unwrap();
        let shift = imported.report.residual_shift;
        assert!(shift <= shift_max, "{gain}: {shift}");
        model(&imported);
    }
    assert!(import_with(1_100.0).is_err());
}

#[test]
fn spreading_outliers_brings_back_what_int8_loses() {
    let plain = ImportOptions {
        spread_outliers: false,
        ..ImportOptions::default()
    };
    for (name, recipe) in recipes() {
        let with = measure(&recipe, &ImportOptions::default());
        let without = measure(&recipe, &plain);
        eprintln!("{name}:\n  {without:?}\n  {with:?}");
        if recipe.outliers > 1.0 {
            assert!(
                with.divergence_nats < without.divergence_nats,
                "{name}: {without:?} {with:?}"
            );
        }
    }
}

#[test]
fn the_same_checkpoint_gives_the_same_bytes_however_it_is_cut_and_counted() {
    let whole = Recipe {
        tied: true,
        ..Recipe::default()
    };
    let cut = Recipe {
        shards: 4,
        ..whole.clone()
    };
    let [whole, cut] = [whole, cut].map(|recipe| {
        let folder = tempfile::tempdir().unwrap();
        recipe.write(folder.path());
        let options = ImportOptions {
            name: Some("one".into()),
            context_tokens: Some(40),
            ..ImportOptions::default()
        };
        let mut seen = Vec::new();
        let imported = import(folder.path(), &options, &mut |p| {
            seen.push((p.done, p.total))
        });
        let total = seen.len();
        assert!(seen.iter().enumerate().all(|(i, p)| *p == (i + 1, total)));
        imported.unwrap()
    });
    assert_eq!(whole.report, cut.report);
    let bytes = whole.parts.to_bytes().unwrap();
    assert_eq!(bytes, cut.parts.to_bytes().unwrap());
    let model = Model::from_bytes(&bytes).unwrap();
    assert_eq!(model.id(), whole.parts.id().unwrap());
    assert_eq!((model.name(), model.context_tokens()), ("one", 40));
}

#[test]
fn random_checkpoints_of_real_shapes_keep_what_they_say_because_outliers_are_spread() {
    let sizes = Sizes {
        dim: 128,
        hidden_dim: 320,
        layers: 3,
        heads: 4,
        kv_heads: 2,
        vocabulary: 500,
        tied_head: true,
    };
    let folder = tempfile::tempdir().unwrap();
    random::write(folder.path(), &sizes, 1).unwrap();
    let [with, without] = [true, false].map(|spread_outliers| {
        let options = ImportOptions {
            spread_outliers,
            ..ImportOptions::default()
        };
        let model = model(&imported(folder.path(), &options));
        let sequences = [Sequence {
            tokens: Random::new(7).tokens(200, sizes.vocabulary),
            counted_from: 1,
        }];
        quality(folder.path(), &Runtime::new(1).unwrap(), &model, &sequences).unwrap()
    });
    eprintln!("{with:?}\n{without:?}");
    assert!(
        with.correlation > 0.999 && with.top1_agreement > 0.9,
        "{with:?}"
    );
    assert!(
        with.divergence_nats < without.divergence_nats / 4.0,
        "{with:?} {without:?}"
    );
}

#[test]
fn the_report_names_each_matrix_and_what_it_lost() {
    let folder = tempfile::tempdir().unwrap();
    Recipe::default().write(folder.path());
    let report = imported(folder.path(), &ImportOptions::default()).report;
    // Embedding, head, seven matrices in each of two layers.
    assert_eq!(report.matrices.len(), 16);
    for matrix in &report.matrices {
        // Uniform errors of half a step against rows whose peak is some three deviations.
        assert!((0.002..0.01).contains(&matrix.error), "{matrix:?}");
    }
}

/// Massive activations, as trained models have them.
fn massive() -> Recipe {
    Recipe {
        outliers: 20.0,
        massive: true,
        ..Recipe::default()
    }
}

fn saturated(ranges: &[Range; 9], kind: Stored) -> u64 {
    let range = ranges.iter().find(|range| range.stored == kind).unwrap();
    range.saturated
}

#[test]
fn massive_activations_saturate_without_a_choice_of_scales_and_nothing_does_with_it() {
    let with_shifts = |residual_shift, gate_shift| {
        let options = ImportOptions {
            residual_shift,
            gate_shift,
            ..ImportOptions::default()
        };
        // Beyond what the stream can hold at all, but for its scale.
        let recipe = Recipe {
            stream: 6.0,
            ..massive()
        };
        measure_on(&recipe, &options, 40, 8)
    };
    let chosen = with_shifts(None, None);
    eprintln!("chosen: {chosen:?}");
    assert!(chosen.ranges.iter().all(|range| range.saturated == 0));
    assert!(chosen.divergence_nats < 0.01, "{chosen:?}");
    for (residual, gate, kind) in [
        (Some(0), None, Stored::Residual),
        (None, Some(0), Stored::GateProduct),
    ] {
        let unscaled = with_shifts(residual, gate);
        eprintln!("{kind:?} unscaled: {unscaled:?}");
        assert!(saturated(&unscaled.ranges, kind) > 0);
        assert_eq!(saturation_notes(&unscaled.ranges).len(), 1);
        assert!(
            unscaled.divergence_nats > 3.0 * chosen.divergence_nats,
            "{kind:?}: {unscaled:?} {chosen:?}"
        );
    }
}

#[test]
fn an_import_chooses_scales_by_what_the_model_does_and_says_what_it_chose() {
    let folder = tempfile::tempdir().unwrap();
    massive().write(folder.path());
    let chosen = imported(folder.path(), &ImportOptions::default()).report;
    assert!((1..=3).contains(&chosen.residual_shift), "{chosen:?}");
    assert!(chosen.gate_shifts[0] >= 2, "{chosen:?}");
    // The other layer has no such products, and keeps its resolution.
    assert_eq!(chosen.gate_shifts[1], 0, "{chosen:?}");
    assert!(chosen.notes.is_empty(), "{chosen:?}");
    for range in &chosen.ranges {
        let scaled = [Stored::Residual, Stored::Up, Stored::GateProduct].contains(&range.stored);
        assert!(
            !scaled || range.peak_q16 < range.stored.max_q16() / 4,
            "{range:?}"
        );
    }
    let unscaled = ImportOptions {
        residual_shift: Some(0),
        ..ImportOptions::default()
    };
    let noted = imported(folder.path(), &unscaled).report.notes;
    assert!(noted[0].starts_with("SATURATED: "), "{noted:?}");

    Recipe::default().write(folder.path());
    let plain = imported(folder.path(), &ImportOptions::default()).report;
    assert_eq!(
        (plain.residual_shift, &plain.gate_shifts[..]),
        (0, &[0, 0][..])
    );
}

#[test]
fn scales_are_moved_without_a_second_rounding() {
    let folder = tempfile::tempdir().unwrap();
    massive().write(folder.path());
    let [chosen, fixed] = [None, Some(3)].map(|shift| {
        let options = ImportOptions {
            residual_shift: shift,
            gate_shift: shift,
            ..ImportOptions::default()
        };
        imported(folder.path(), &options).parts.tensors
    });
    for (name, bytes) in &chosen {
        let mut other = fixed[name].clone();
        let mut bytes = bytes.clone();
        if name.ends_with(".scale") {
            // The exponents.
            bytes
                .iter_mut()
                .skip(3)
                .step_by(4)
                .for_each(|byte| *byte = 0);
            other
                .iter_mut()
                .skip(3)
                .step_by(4)
                .for_each(|byte| *byte = 0);
        }
        assert_eq!(bytes, other, "{name}");
    }
}

#[test]
fn a_tied_head_stays_the_embedding_and_the_final_norms_gains_stand_beside_it() {
    let tied = Recipe {
        tied: true,
        outliers: 1.0,
        ..Recipe::default()
    };
    let massive = Recipe {
        massive: true,
        ..tied.clone()
    };
    for (recipe, shift) in [(&tied, None), (&tied, Some(3)), (&massive, None)] {
        let folder = tempfile::tempdir().unwrap();
        recipe.write(folder.path());
        let options = ImportOptions {
            residual_shift: shift,
            ..ImportOptions::default()
        };
        let imported = imported(folder.path(), &options);
        let (parts, report) = (&imported.parts, &imported.report);
        assert!(parts.architecture.tied_head && !parts.tensors.contains_key("lm_head.weight"));
        // Seven matrices in each of two layers, and one table.
        assert_eq!(report.matrices.len(), 15);
        let matrices = 2 * (64 * (64 + 32 + 32 + 64) + 3 * 64 * 192);
        assert_eq!(report.parameters, 258 * 64 + matrices);
        // As in the checkpoint, and what the stream was divided by given back.
        let gains = &parts.tensors["model.norm.gain"];
        let tensors = recipe.tensors();
        let originals = &tensors["model.norm.weight"].1;
        assert_eq!(gains.len(), 4 * originals.len());
        for (gain, original) in gains.as_chunks::<4>().0.iter().zip(originals) {
            let gain = f64::from(i32::from_le_bytes(*gain)) / 65_536.0;
            let expected = f64::from(*original) * f64::from(1 << report.residual_shift);
            assert!((gain - expected).abs() < 1e-5, "{gain} {expected}");
        }
        // It says what the same head says when it stands apart, with the gains folded into it.
        let tied = measure_folder(folder.path(), &options, 6, 48);
        let mut tensors = tensors.clone();
        let head = tensors["model.embed_tokens.weight"].clone();
        tensors.insert("lm_head.weight".to_owned(), head);
        let apart = Recipe {
            tied: false,
            ..recipe.clone()
        };
        apart.write_config(folder.path());
        apart.write_tensors(folder.path(), &tensors);
        let apart = measure_folder(folder.path(), &options, 6, 48);
        eprintln!("{shift:?}: {tied:?}\n{apart:?}");
        assert_eq!(tied.perplexity_reference, apart.perplexity_reference);
        assert!(
            tied.divergence_nats < 1.5 * apart.divergence_nats + 1e-4,
            "{tied:?} {apart:?}"
        );
        assert!(
            tied.correlation > apart.correlation - 0.003,
            "{tied:?} {apart:?}"
        );
    }
}

#[test]
fn a_model_is_named_by_its_owner_or_its_configuration_and_never_by_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let of = |name_or_path: Option<&str>, given: Option<&str>| {
        let recipe = Recipe {
            config: serde_json::json!({ "_name_or_path": name_or_path }),
            ..Recipe::default()
        };
        recipe.write(folder.path());
        let options = ImportOptions {
            name: given.map(str::to_owned),
            ..ImportOptions::default()
        };
        import(folder.path(), &options, &mut |_| {}).map(|imported| imported.parts.name)
    };
    assert_eq!(of(Some("maker/Model-1B"), None).unwrap(), "Model-1B");
    assert_eq!(of(Some("/home/a/Model-1B/"), None).unwrap(), "Model-1B");
    assert_eq!(of(Some("maker/Model-1B"), Some("mine")).unwrap(), "mine");
    for unusable in [None, Some(""), Some("./"), Some(".."), Some("a/b\n")] {
        let refused = of(unusable, None).unwrap_err().to_string();
        assert!(refused.contains("--name"), "{refused}");
        assert_eq!(of(unusable, Some("mine")).unwrap(), "mine");
    }
}

#[test]
fn an_imported_model_says_which_importer_made_it() {
    let folder = tempfile::tempdir().unwrap();
    Recipe::default().write(folder.path());
    let model = model(&imported(folder.path(), &ImportOptions::default()));
    assert_eq!(model.manifest().import, Some(IMPORT_VERSION));
}
