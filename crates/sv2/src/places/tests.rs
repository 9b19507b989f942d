use super::tallies::MEMORY;
use super::*;

const LIMITS: PlaceLimits = PlaceLimits {
    connections_max: 40,
    per_address_max: 4,
    per_network_max: 8,
    reserved: 10,
    first_proof: Some(Duration::from_secs(600)),
    silence: Some(Duration::from_secs(3_600)),
};

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn fill(places: &Places, from: &str) -> Vec<Place> {
    std::iter::from_fn(|| places.take(address(from)).ok()).collect()
}

#[test]
fn one_host_and_one_network_hold_a_few_idle_places_only() {
    let places = Places::new(LIMITS);
    let host = fill(&places, "192.0.2.1");
    assert_eq!(host.len(), 4);
    assert_eq!(fill(&places, "::ffff:192.0.2.1").len(), 0);
    let neighbour = fill(&places, "192.0.2.2");
    assert_eq!(neighbour.len(), 4);
    let refused = places.take(address("192.0.2.3")).unwrap_err();
    assert_eq!(refused, PlaceRefusal::Network);
    assert_eq!(fill(&places, "198.51.100.1").len(), 4);
    drop(host);
    assert_eq!(fill(&places, "192.0.2.3").len(), 4);
    // A host of IPv6 has more addresses than anybody can count.
    let _six = fill(&places, "2001:db8:0:1::1");
    assert_eq!(fill(&places, "2001:db8:0:1:ffff::9").len(), 0);
    assert_eq!(fill(&places, "2001:db8:0:2::1").len(), 4);
    assert_eq!(fill(&places, "2001:db8:1:2::1").len(), 4);
}

#[test]
fn a_farm_behind_one_address_that_proves_work_gets_in_whole_and_comes_back_whole() {
    let farm = address("192.0.2.1");
    let places = Places::new(PlaceLimits {
        connections_max: 2_000,
        ..LIMITS
    });
    let (mut inside, mut rounds) = (Vec::new(), 0);
    while inside.len() < 1_000 {
        inside.extend(fill(&places, "192.0.2.1"));
        inside.iter().for_each(Place::prove);
        rounds += 1;
    }
    assert!(rounds <= 10, "{rounds}");
    inside.truncate(1_000);
    // Its line fails for a moment.
    drop(inside);
    let back: Vec<_> = (0..1_000).map(|_| places.take(farm).unwrap()).collect();
    assert_eq!(back.len(), 1_000);
    // What it has proven is no good to anybody else, and not for ever.
    assert_eq!(fill(&places, "203.0.113.1").len(), 4);
    drop(back);
    let later = Instant::now() + MEMORY + Duration::from_secs(1);
    let held: Vec<_> = (0..5).map(|_| places.take_at(farm, later)).collect();
    assert_eq!(held.iter().filter(|place| place.is_ok()).count(), 4);
}

#[test]
fn the_reserved_places_are_for_those_who_are_known() {
    let places = Places::new(LIMITS);
    let mut crowd = Vec::new();
    for network in 0..10 {
        crowd.extend(fill(&places, &format!("10.{network}.0.1")));
    }
    assert_eq!(crowd.len(), 40);
    let soon = |place: &Place| place.deadline().unwrap() == place.opened + PROBATION;
    assert_eq!(crowd.iter().filter(|place| !soon(place)).count(), 30);
    let stranger = &crowd[39];
    assert!(soon(stranger));
    stranger.vouch();
    assert_eq!(
        stranger.deadline().unwrap(),
        stranger.opened + LIMITS.first_proof.unwrap()
    );
    // A key that has earned proves that it is known. Others cost nothing, so they save nobody.
    let worker = &crowd[38];
    worker.register(false);
    assert!(soon(worker));
    worker.register(true);
    assert_eq!(worker.deadline(), None);
    let newcomer = &crowd[0];
    newcomer.register(false);
    let silence = LIMITS.silence.unwrap();
    assert_eq!(newcomer.deadline(), Some(newcomer.opened + silence));
    // An address that has proven work is known.
    crowd[2].prove();
    crowd[3].prove();
    let place = places.take(address("10.0.0.1")).unwrap();
    assert!(!soon(&place));
}

#[test]
fn deadlines_begin_anew_with_each_proof() {
    let places = Places::new(LIMITS);
    let place = places.take(address("192.0.2.1")).unwrap();
    let at = |seconds| place.opened + Duration::from_secs(seconds);
    assert_eq!(place.deadline(), Some(at(600)));
    // One lucky proof gives no more than the time for the first.
    place.prove_at(at(500));
    assert_eq!(place.deadline(), Some(at(1_100)));
    place.prove_at(at(3_000));
    assert_eq!(place.deadline(), Some(at(6_000)));
    place.prove_at(at(5_000));
    assert_eq!(place.deadline(), Some(at(8_600)));
    let places = Places::new(PlaceLimits::total(1));
    assert_eq!(places.take(address("::1")).unwrap().deadline(), None);
}

#[test]
fn nothing_is_kept_of_who_has_proven_nothing() {
    let places = Places::new(LIMITS);
    for host in 0..100 {
        drop(fill(&places, &format!("192.0.2.{host}")));
    }
    let book = places.0.book();
    assert!(book.addresses.is_empty() && book.networks.is_empty());
    assert_eq!(book.unproven, 0);
}
