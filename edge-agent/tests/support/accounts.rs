//! Produced = delivered + waiting + lost: looked at at the end of every test of telemetry.
#![allow(dead_code, unreachable_pub, reason = "each test uses a part, as a module of its own")]

use edge_agent::telemetry::Spool;
use edge_agent::telemetry::spool::Accounts;

/// Each value has become one thing, and one thing only.
#[track_caller]
pub fn balanced(spool: &Spool) -> Accounts {
    let accounts = spool.accounts();
    assert!(
        accounts.balance(),
        "produced = delivered + waiting + lost: {accounts:?}, {:?}",
        spool.stats.lost.by_reason()
    );
    accounts
}

/// The same, and nothing was lost and nothing waits.
#[track_caller]
pub fn all_delivered(spool: &Spool) {
    let accounts = balanced(spool);
    assert_eq!((accounts.waiting, accounts.lost), (0, 0), "{accounts:?}");
}

/// Stops an agent, and looks at the books of its spool as they are then.
#[track_caller]
pub fn stopped(agent: edge_agent::Agent) -> impl Future<Output = Accounts> {
    let at = std::panic::Location::caller();
    async move {
        let spool = agent.stages.spool.clone();
        agent.stop().await;
        let accounts = spool.accounts();
        assert!(accounts.balance(), "{at}: produced = delivered + waiting + lost: {accounts:?}");
        accounts
    }
}
