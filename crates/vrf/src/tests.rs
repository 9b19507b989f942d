use proptest::prelude::*;

use super::*;

/// The vector of <https://c2sp.org/vrf-r255>.
const SECRET: &str = "3431c2b03533e280b23232e280b34e2c3132c2b03238e280b23131e280b34500";
const PUBLIC: &str = "54136cd90d99fbd1d4e855d9556efea87ba0337f2a6ce22028d0f5726fcb854e";
const INPUT: &[u8] = b"c2sp.org/vrf-r255";
const PROOF: &str = "0a97d961262fb549b4175c5117860f42ae44a123f93c476c439eddd1c0cff926\
                     5c805525233e2284dbed45e593b8eea3\
                     1d5ca9734d72bcbba9738d5237f955f3b2422351149d1312503b6441a47c940c";
const OUTPUT: &str = "dd653f0879b48c3ef69e13551239bec4cbcc1c18fe8894de2e9e1c790e182736\
                      03bf1c6c25d7a797aeff3c43fd32b974d3fcbd4bcce916007097922a3ea3a794";

/// The group's order less one, and the order itself, little-endian.
const LARGEST_SCALAR: &str = "ecd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010";
const ORDER: &str = "edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010";

fn bytes<const N: usize>(hex: &str) -> [u8; N] {
    hex::decode(hex).unwrap().try_into().unwrap()
}

fn secret(text: &str) -> VrfSecret {
    VrfSecret::from_bytes(bytes(text)).unwrap()
}

#[test]
fn the_vector_of_the_specification_holds() {
    let secret = secret(SECRET);
    let key = secret.public_key();
    assert_eq!(key.to_bytes(), bytes(PUBLIC));
    assert_eq!(key, PUBLIC.parse().unwrap());
    let (output, proof) = secret.evaluate(INPUT);
    assert_eq!(proof.to_bytes(), bytes(PROOF));
    assert_eq!(output.to_bytes(), bytes(OUTPUT));
    assert_eq!(output.seed(), bytes::<32>(&OUTPUT[..64]));
    let given = VrfProof::from_bytes(bytes(PROOF));
    assert_eq!(key.verify(INPUT, &given), Ok(output));
}

#[test]
fn a_proof_with_any_bit_turned_over_holds_no_more() {
    let key: VrfPublicKey = PUBLIC.parse().unwrap();
    for bit in 0..VrfProof::BYTES * 8 {
        let mut proof = bytes::<80>(PROOF);
        proof[bit / 8] ^= 1 << (bit % 8);
        let verified = key.verify(INPUT, &VrfProof::from_bytes(proof));
        assert_eq!(verified, Err(ProofError), "bit {bit}");
    }
}

#[test]
fn a_scalar_above_the_order_is_no_second_proof_of_the_same_output() {
    let key: VrfPublicKey = PUBLIC.parse().unwrap();
    let mut proof = bytes::<80>(PROOF);
    // s + order, which is the same scalar and another string.
    let order = bytes::<32>(ORDER);
    let mut carry = 0_u16;
    for (byte, more) in proof[48..].iter_mut().zip(order) {
        let sum = u16::from(*byte) + u16::from(more) + carry;
        *byte = u8::try_from(sum & 0xff).unwrap();
        carry = sum >> 8;
    }
    assert_eq!(carry, 0);
    let verified = key.verify(INPUT, &VrfProof::from_bytes(proof));
    assert_eq!(verified, Err(ProofError));
}

#[test]
fn what_stands_where_there_is_no_proof_holds_for_no_input() {
    let key: VrfPublicKey = PUBLIC.parse().unwrap();
    for input in [INPUT, b"", b"another"] {
        assert_eq!(key.verify(input, &VrfProof::NONE), Err(ProofError));
    }
}

#[test]
fn the_identity_and_bytes_that_are_no_point_are_no_public_keys() {
    // By the identity, any output could be proven for any input.
    for not_a_key in [[0; 32], [0xff; 32], bytes(ORDER)] {
        assert_eq!(VrfPublicKey::from_bytes(not_a_key), Err(KeyError::NoPoint));
    }
    // Minus one, which encodes no point.
    let mut negative = [0xff; 32];
    (negative[0], negative[31]) = (0xec, 0x7f);
    assert_eq!(VrfPublicKey::from_bytes(negative), Err(KeyError::NoPoint));
    assert_eq!("54".parse::<VrfPublicKey>(), Err(KeyError::Hex));
}

#[test]
fn any_bytes_of_a_key_file_are_a_secret_but_those_of_zero() {
    assert!(VrfSecret::from_bytes([0xff; 32]).is_ok());
    assert!(VrfSecret::from_bytes(bytes(LARGEST_SCALAR)).is_ok());
    let mut only_what_does_not_count = [0; 32];
    only_what_does_not_count[31] = 0xf0;
    for zero in [[0; 32], only_what_does_not_count] {
        assert_eq!(VrfSecret::from_bytes(zero).err(), Some(KeyError::Zero));
    }
}

#[test]
fn a_secret_is_not_shown() {
    let shown = format!("{:?}", secret(SECRET));
    assert_eq!(shown, "VrfSecret(..)");
}

proptest! {
    #[test]
    fn what_the_owner_evaluates_anyone_can_check(secret: [u8; 32], input: Vec<u8>) {
        let Ok(secret) = VrfSecret::from_bytes(secret) else { return Ok(()) };
        let (output, proof) = secret.evaluate(&input);
        let key = VrfPublicKey::from_bytes(secret.public_key().to_bytes()).unwrap();
        prop_assert_eq!(key.verify(&input, &proof), Ok(output));
        // Once more is the same: there is one output, and the owner's own proof has no freedom either.
        prop_assert_eq!(secret.evaluate(&input), (output, proof));
    }

    #[test]
    fn a_proof_is_of_one_key_and_one_input(a: [u8; 32], b: [u8; 32], input: Vec<u8>, other: Vec<u8>) {
        let (Ok(one), Ok(another)) = (VrfSecret::from_bytes(a), VrfSecret::from_bytes(b)) else { return Ok(()) };
        prop_assume!(one.public_key() != another.public_key() && input != other);
        let (output, proof) = one.evaluate(&input);
        prop_assert_eq!(another.public_key().verify(&input, &proof), Err(ProofError));
        prop_assert_eq!(one.public_key().verify(&other, &proof), Err(ProofError));
        prop_assert_ne!(another.evaluate(&input).0, output);
        prop_assert_ne!(one.evaluate(&other).0, output);
    }

    #[test]
    fn strange_bytes_are_refused_and_break_nothing(key: [u8; 32], proof in proptest::collection::vec(any::<u8>(), 80)) {
        let proof = VrfProof::from_bytes(proof.try_into().unwrap());
        let good: VrfPublicKey = PUBLIC.parse().unwrap();
        prop_assert_eq!(good.verify(INPUT, &proof), Err(ProofError));
        if let Ok(key) = VrfPublicKey::from_bytes(key) {
            prop_assert_eq!(key.verify(INPUT, &proof), Err(ProofError));
        }
    }
}
