//! Evidence and verdicts as `dovetail.validation.v1` carries them. What comes in is checked against the
//! bounds of the protocol before anything is computed.

use dovetail_api::validation_v1 as proto;
use dovetail_api::{VALIDATION_EVIDENCE_MAX, VALIDATION_MESSAGE_BYTES_MAX};
use dovetail_audit::{Evidence, Finding, Mismatch, Replayed, Verdict};
use dovetail_commitment::{
    CONSTRAINT_BYTES_MAX, Constraint, EncodedPrompt, OUTPUT_TOKENS_MAX, PROMPT_BYTES_MAX,
    StopSequences, Transcript,
};

/// What one transcript takes with the longest prompt, output (a token is at most 5 bytes of protobuf) and constraint, and
/// room for the fields around them.
const EVIDENCE_BYTES_MAX: usize =
    PROMPT_BYTES_MAX + 5 * OUTPUT_TOKENS_MAX as usize + CONSTRAINT_BYTES_MAX + 4_096;
// A batch of the longest is one message.
const _: () = assert!(VALIDATION_EVIDENCE_MAX * EVIDENCE_BYTES_MAX <= VALIDATION_MESSAGE_BYTES_MAX);

/// A message that breaks its own rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is malformed or out of bounds")]
pub(super) struct Malformed(&'static str);

pub(super) fn evidence_to_proto(evidence: &Evidence) -> proto::Evidence {
    proto::Evidence {
        transcript: evidence.transcript.encode(),
        salt: evidence.salt.to_vec(),
        prompt: evidence.prompt.encode(),
        stop: evidence.stop.iter().map(<[u8]>::to_vec).collect(),
        output_tokens: evidence.output_tokens.clone(),
        constraint: evidence
            .constraint
            .as_ref()
            .map(Constraint::encode)
            .unwrap_or_default(),
    }
}

pub(super) fn evidence_from_proto(evidence: proto::Evidence) -> Result<Evidence, Malformed> {
    if evidence.output_tokens.len() > OUTPUT_TOKENS_MAX as usize {
        return Err(Malformed("an output"));
    }
    Ok(Evidence {
        transcript: Transcript::decode(&evidence.transcript)
            .map_err(|_| Malformed("a transcript"))?,
        salt: array(&evidence.salt)?,
        prompt: EncodedPrompt::decode(&evidence.prompt).map_err(|_| Malformed("a prompt"))?,
        stop: StopSequences::new(evidence.stop).map_err(|_| Malformed("a stop sequence"))?,
        constraint: constraint(&evidence.constraint)?,
        output_tokens: evidence.output_tokens,
    })
}

/// Empty: none.
fn constraint(bytes: &[u8]) -> Result<Option<Constraint>, Malformed> {
    if bytes.is_empty() {
        return Ok(None);
    }
    match Constraint::decode_optional_from(bytes) {
        Ok((constraint @ Some(_), [])) => Ok(constraint),
        _ => Err(Malformed("a constraint")),
    }
}

pub(super) fn verdict_to_proto(verdict: &Verdict) -> proto::Verdict {
    let Err(finding) = verdict else {
        return proto::Verdict::default();
    };
    let position = finding.mismatch.position();
    proto::Verdict {
        mismatch: finding.mismatch.code().to_owned(),
        position: position.map(|position| u32::try_from(position).unwrap_or(u32::MAX)),
        replayed: finding.replayed.map(|replayed| proto::Replayed {
            tokens: replayed.tokens,
            output_digest: replayed.output_digest.to_vec(),
            trace_root: replayed.trace_root.to_vec(),
        }),
    }
}

pub(super) fn verdict_from_proto(verdict: &proto::Verdict) -> Result<Verdict, Malformed> {
    if verdict.mismatch.is_empty() {
        return match (verdict.position, &verdict.replayed) {
            (None, None) => Ok(Ok(())),
            _ => Err(Malformed("a verdict")),
        };
    }
    let position = verdict.position.map(|position| position as usize);
    let mismatch = Mismatch::from_parts(&verdict.mismatch, position);
    let replayed = verdict.replayed.as_ref().map(|replayed| {
        Ok(Replayed {
            tokens: replayed.tokens,
            output_digest: array(&replayed.output_digest)?,
            trace_root: array(&replayed.trace_root)?,
        })
    });
    Ok(Err(Finding {
        mismatch: mismatch.ok_or(Malformed("a verdict"))?,
        replayed: replayed.transpose()?,
    }))
}

/// 32 bytes.
pub(super) fn array(bytes: &[u8]) -> Result<[u8; 32], Malformed> {
    bytes.try_into().map_err(|_| Malformed("a hash"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evidence_comes_back_as_it_was_with_its_stop_sequences_and_its_constraint() {
        let evidence = crate::claims::audit::tests::evidence_without_meaning();
        let back = evidence_from_proto(evidence_to_proto(&evidence)).unwrap();
        assert_eq!(back.transcript, evidence.transcript);
        assert_eq!(back.stop, evidence.stop);
        assert!(!back.stop.is_empty());
        assert_eq!(back.constraint, evidence.constraint);
        assert!(back.constraint.is_some());
        assert_eq!((back.salt, back.prompt), (evidence.salt, evidence.prompt));
        assert_eq!(back.output_tokens, evidence.output_tokens);
    }

    #[test]
    fn evidence_out_of_bounds_is_refused() {
        let evidence = crate::claims::audit::tests::evidence_without_meaning();
        let good = evidence_to_proto(&evidence);
        let spoils: [fn(&mut proto::Evidence); 11] = [
            |it| it.transcript.truncate(10),
            |it| it.salt.clear(),
            |it| it.prompt = vec![0; 32 + PROMPT_BYTES_MAX + 4],
            |it| it.prompt.truncate(32),
            |it| it.prompt.push(0),
            |it| it.stop = vec![vec![1]; 5],
            |it| it.stop = vec![Vec::new()],
            |it| it.output_tokens = vec![0; OUTPUT_TOKENS_MAX as usize + 1],
            |it| it.constraint.push(0),
            |it| it.constraint.truncate(3),
            |it| it.constraint = vec![0],
        ];
        for spoil in spoils {
            let mut bad = good.clone();
            spoil(&mut bad);
            assert!(evidence_from_proto(bad).is_err());
        }
    }

    #[test]
    fn verdicts_come_back_as_they_were_and_contradictions_are_refused() {
        let replayed = Replayed {
            tokens: 8,
            output_digest: [1; 32],
            trace_root: [2; 32],
        };
        let found: Verdict = Err(Finding {
            mismatch: Mismatch::Tokens { position: 7 },
            replayed: Some(replayed),
        });
        for verdict in [Ok(()), found, Err(Mismatch::Prompt.into())] {
            assert_eq!(verdict_from_proto(&verdict_to_proto(&verdict)), Ok(verdict));
        }
        let mut bad = verdict_to_proto(&found);
        bad.mismatch = "nothing of the kind".to_owned();
        assert!(verdict_from_proto(&bad).is_err());
        let mut bad = verdict_to_proto(&found);
        bad.mismatch.clear();
        assert!(verdict_from_proto(&bad).is_err());
        let mut bad = verdict_to_proto(&found);
        bad.position = None;
        assert!(verdict_from_proto(&bad).is_err());
    }
}
