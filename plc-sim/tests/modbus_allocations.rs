//! The load server allocates nothing for a request: it must not show in what is measured beside it.

mod wire;

use plc_sim::bank::{Bank, BankConfig};
use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: everything is handed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[test]
fn ten_thousand_requests_allocate_nothing() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let config = BankConfig { units: 10, rate: Duration::from_millis(10), ..BankConfig::default() };
    let bank = runtime.block_on(Bank::start(config)).unwrap();
    let mut stream = std::net::TcpStream::connect(bank.addr).unwrap();
    stream.set_read_timeout(Some(wire::PATIENCE)).unwrap();
    let one = wire::frame(1, 3, &wire::read(3, 100, 125));
    let ten = one.repeat(10);
    let mut answers = vec![0; 10 * 259];
    let mut ask = |requests: &[u8], answers: &mut [u8]| {
        stream.write_all(requests).unwrap();
        stream.read_exact(answers).unwrap();
    };
    let mut rounds = |n| {
        for _ in 0..n {
            ask(&one, &mut answers[..259]);
            ask(&ten, &mut answers);
        }
    };
    rounds(50); // buffers find their size
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    rounds(910);
    let allocated = ALLOCATIONS.load(Ordering::Relaxed) - before;
    // The runtime may do a little of its own.
    assert!(allocated < 20, "{allocated} allocations in 10,010 requests");
    assert_eq!(bank.report().requests, 11 * 960);
}
