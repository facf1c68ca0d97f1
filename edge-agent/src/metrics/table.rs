//! The one table of figures: name, help, kind, and where each is read.

use super::figure::{Figure, Kind, Reading, counter, figure, flag, number, of_process, per_device, per_line};
use super::histogram::Edges;
use super::process;
use crate::commands::OUTCOMES;
use crate::control::ROBOT_STATES;
use crate::field::Refusal;
use device_drivers::{Health, LinkState};
use std::sync::atomic::Ordering::Relaxed;

use Kind::{Counter, Gauge, Histogram as Distribution};

/// Every figure there is.
pub const TABLE: &[Figure] = &[
    figure("lightsout_build_info", "Always 1; the version is the label.", Gauge, |_, put| {
        put(Some(("version", env!("CARGO_PKG_VERSION"))), Reading::Number(1.0));
    }),
    figure("lightsout_run_state", "1 for the state the runtime is in, 0 for the others.", Gauge, |s, put| {
        for (name, now) in s.control.run_states() {
            put(Some(("state", name)), Reading::Number(f64::from(u8::from(now))));
        }
    }),
    figure("lightsout_cycles_total", "Control cycles completed.", Counter, |s, put| {
        number(put, s.control.cycles.load(Relaxed));
    }),
    figure("lightsout_cycles_missed_total", "Beats skipped because a cycle was late.", Counter, |s, put| {
        number(put, s.control.missed.load(Relaxed));
    }),
    figure("lightsout_cycle_exec_seconds", "Time a control cycle takes.", Distribution, |s, put| {
        put(None, Reading::Distribution(&s.control.exec, Edges::Fine));
    }),
    figure("lightsout_cycle_wake_seconds", "Time from the beat to the start of its cycle.", Distribution, |s, put| {
        put(None, Reading::Distribution(&s.control.wake, Edges::Fine));
    }),
    figure("lightsout_realtime", "1 when every permission for real time was granted.", Gauge, |s, put| {
        flag(put, s.control.realtime.load(Relaxed));
    }),
    figure("lightsout_image_age_seconds", "Age of the newest machine status in the input image.", Gauge, |s, put| {
        put(None, Reading::Number(s.control.image_age_ms.load(Relaxed) as f64 / 1000.0));
    }),
    figure(
        "lightsout_events_lost_total",
        "Events that did not fit into the ring to the order desk.",
        Counter,
        |s, put| {
            number(put, s.control.events_lost.load(Relaxed));
        },
    ),
    figure("lightsout_orders_active", "Orders that are not ended.", Gauge, |s, put| {
        number(put, s.control.orders_active.load(Relaxed));
    }),
    figure("lightsout_orders_accepted_total", "Orders taken, those found and adopted included.", Counter, |s, put| {
        counter(s, put, 0)
    }),
    figure("lightsout_orders_rejected_total", "Orders refused.", Counter, |s, put| counter(s, put, 1)),
    figure("lightsout_orders_completed_total", "Orders whose load is where it should be.", Counter, |s, put| {
        counter(s, put, 2)
    }),
    figure("lightsout_orders_failed_total", "Orders given up.", Counter, |s, put| counter(s, put, 3)),
    figure(
        "lightsout_orders_withdrawn_total",
        "Orders withdrawn, by somebody or because another order has taken over their load.",
        Counter,
        |s, put| counter(s, put, 8),
    ),
    figure(
        "lightsout_orders_resumed_total",
        "Orders of an earlier run that had not ended, and go on.",
        Counter,
        |s, put| number(put, s.desk.resumed),
    ),
    figure(
        "lightsout_orders_reconciled_total",
        "Orders whose state was put right, because word of them from the control thread was lost.",
        Counter,
        |s, put| number(put, s.desk.reconciled.load(Relaxed)),
    ),
    figure("lightsout_orders_busy_total", "Orders turned away because too many came at once.", Counter, |s, put| {
        number(put, s.desk.busy.load(Relaxed));
    }),
    figure("lightsout_commands_sent_total", "Commands made for machines.", Counter, |s, put| counter(s, put, 4)),
    figure("lightsout_commands_done_total", "Commands that machines have done.", Counter, |s, put| counter(s, put, 5)),
    figure("lightsout_commands_failed_total", "Commands that failed or were rejected.", Counter, |s, put| {
        counter(s, put, 6)
    }),
    figure("lightsout_commands_expired_total", "Commands that came too late to be begun.", Counter, |s, put| {
        counter(s, put, 7)
    }),
    figure(
        "lightsout_control_table_bytes",
        "Bytes of the core's tables, asked for before the first cycle.",
        Gauge,
        |s, put| {
            number(put, s.control.table_bytes.load(Relaxed));
        },
    ),
    figure("lightsout_robots", "Mobile robots, by what they are doing on the roads.", Gauge, |s, put| {
        if s.robots.any() {
            for ((_, name), count) in ROBOT_STATES.iter().zip(s.robots.counts()) {
                put(Some(("state", name)), Reading::Number(count as f64));
            }
        }
    }),
    figure("lightsout_robot_battery_ratio", "Charge of a mobile robot's battery, 0 to 1.", Gauge, |s, put| {
        for (name, charge) in s.robots.charges() {
            put(Some(("machine", &name)), Reading::Number(charge));
        }
    }),
    figure("lightsout_gates", "Parts of the roads that are entered with a pass only.", Gauge, |s, put| {
        if s.robots.any() {
            number(put, s.robots.gates());
        }
    }),
    figure("lightsout_gates_occupied", "Those for which a robot holds a pass.", Gauge, |s, put| {
        if s.robots.any() {
            number(put, s.robots.gates_occupied());
        }
    }),
    figure("lightsout_line_up", "1 while the line has a link.", Gauge, |s, put| {
        per_line(s, put, |l| u64::from(l.state() == LinkState::Up));
    }),
    figure("lightsout_line_connects_total", "Links made.", Counter, |s, put| {
        per_line(s, put, |l| l.connects.load(Relaxed))
    }),
    figure("lightsout_line_failures_total", "Links lost, and tries that failed.", Counter, |s, put| {
        per_line(s, put, |l| l.failures.load(Relaxed));
    }),
    figure(
        "lightsout_line_untrusted",
        "1 while the line is down because its server's certificate is not trusted: edge-agent pki.",
        Gauge,
        |s, put| per_line(s, put, |l| u64::from(l.refusal() == Some(Refusal::Untrusted))),
    ),
    figure(
        "lightsout_line_denied",
        "1 while the line is down because the server refuses our certificate, user or security.",
        Gauge,
        |s, put| per_line(s, put, |l| u64::from(l.refusal() == Some(Refusal::Denied))),
    ),
    figure("lightsout_line_insecure", "1 for an OPC UA line with security none.", Gauge, |s, put| {
        per_line(s, put, |l| u64::from(l.is_insecure));
    }),
    figure("lightsout_polls_total", "Polls made.", Counter, |s, put| per_line(s, put, |l| l.polls.load(Relaxed))),
    figure(
        "lightsout_polls_missed_total",
        "Polls of a device not made because the ones before took too long.",
        Counter,
        |s, put| per_device(s, put, |d| d.missed.load(Relaxed) as f64),
    ),
    figure("lightsout_device_up", "1 while the device answers.", Gauge, |s, put| {
        per_device(s, put, |d| f64::from(u8::from(d.health() == Health::Healthy)));
    }),
    figure(
        "lightsout_device_demoted",
        "1 while the device is asked less often: it did not answer.",
        Gauge,
        |s, put| {
            per_device(s, put, |d| f64::from(u8::from(d.health() == Health::Demoted)));
        },
    ),
    figure("lightsout_device_age_seconds", "Time since the device was last read.", Gauge, |s, put| {
        let now = s.clock.now().0;
        for (line, stats) in s.lines.all().iter() {
            let line: &str = line;
            for device in &stats.devices {
                let at = device.read_at_ms.load(Relaxed);
                if at > 0 {
                    let age = now.saturating_sub(at) as f64 / 1000.0;
                    put(Some(("device", &device.name)), Reading::Labelled(&[("line", line)], age));
                }
            }
        }
    }),
    figure("lightsout_device_tags_bad", "Tags of the device whose quality is Bad.", Gauge, |s, put| {
        per_device(s, put, |d| d.bad.load(Relaxed) as f64);
    }),
    figure(
        "lightsout_poll_start_jitter_seconds",
        "Time from a poll's due time to its start.",
        Distribution,
        |s, put| {
            for device in s.lines.all().iter().flat_map(|(_, stats)| &stats.devices) {
                put(Some(("device", &device.name)), Reading::Distribution(&device.jitter, Edges::Rough));
            }
        },
    ),
    figure("lightsout_poll_seconds", "Time a poll takes.", Distribution, |s, put| {
        for (name, stats) in s.lines.all().iter() {
            put(Some(("line", name)), Reading::Distribution(&stats.poll, Edges::Coarse));
        }
    }),
    figure("lightsout_requests_total", "Requests sent to devices.", Counter, |s, put| {
        per_line(s, put, |l| l.requests.load(Relaxed))
    }),
    figure("lightsout_timeouts_total", "Requests that were not answered in time.", Counter, |s, put| {
        per_line(s, put, |l| l.timeouts.load(Relaxed))
    }),
    figure("lightsout_replies_dropped_total", "Replies dropped: late, duplicate, foreign.", Counter, |s, put| {
        per_line(s, put, |l| l.dropped.load(Relaxed))
    }),
    figure("lightsout_replies_bad_total", "Replies that were no answer to what was asked.", Counter, |s, put| {
        per_line(s, put, |l| l.bad_replies.load(Relaxed))
    }),
    figure(
        "lightsout_serial_echoes_total",
        "Copies of our own words that the adapter of a serial line gave back.",
        Counter,
        |s, put| per_line(s, put, |l| l.echoes.load(Relaxed)),
    ),
    figure(
        "lightsout_serial_noise_total",
        "Requests sent into a serial line that was never silent.",
        Counter,
        |s, put| per_line(s, put, |l| l.noise.load(Relaxed)),
    ),
    figure("lightsout_readings_total", "Readings taken from devices.", Counter, |s, put| {
        per_line(s, put, |l| l.readings.load(Relaxed))
    }),
    figure("lightsout_readings_bad_total", "Readings that were Bad.", Counter, |s, put| {
        per_line(s, put, |l| l.bad_readings.load(Relaxed))
    }),
    figure("lightsout_blocks_written_total", "Command blocks written and acknowledged.", Counter, |s, put| {
        per_line(s, put, |l| l.blocks.load(Relaxed));
    }),
    figure(
        "lightsout_blocks_failed_total",
        "Command blocks refused or not acknowledged; they are written again.",
        Counter,
        |s, put| per_line(s, put, |l| l.blocks_failed.load(Relaxed)),
    ),
    figure("lightsout_writes_total", "Tag writes asked for from outside, by what came of them.", Counter, |s, put| {
        for (name, count) in OUTCOMES.iter().zip(&s.writes.stats.outcomes) {
            put(Some(("outcome", name)), Reading::Number(count.load(Relaxed) as f64));
        }
    }),
    figure(
        "lightsout_write_wait_worst_seconds",
        "The longest a write can wait for the line: when a device does not answer.",
        Gauge,
        |s, put| {
            for (name, stats) in s.lines.all().iter() {
                put(Some(("line", name)), Reading::Number(stats.write_wait_worst.as_secs_f64()));
            }
        },
    ),
    figure("lightsout_write_seconds", "Time from a tag write's request to its outcome.", Distribution, |s, put| {
        put(None, Reading::Distribution(&s.writes.stats.took, Edges::Fine));
    }),
    figure("lightsout_commands_received_total", "Commands that came over MQTT and Sparkplug.", Counter, |s, put| {
        number(put, s.commands.received.load(Relaxed));
    }),
    figure("lightsout_commands_refused_total", "Those that were turned away at the gate.", Counter, |s, put| {
        number(put, s.commands.refused.load(Relaxed));
    }),
    figure("lightsout_commands_retained_total", "Retained commands, which are ignored.", Counter, |s, put| {
        number(put, s.commands.retained.load(Relaxed));
    }),
    figure("lightsout_audit_entries_total", "Entries of the audit record.", Counter, |s, put| {
        number(put, s.audit.entries.load(Relaxed));
    }),
    figure(
        "lightsout_store_events_total",
        "Events written to the store: orders, alarms, closings, the audit record.",
        Counter,
        |s, put| {
            number(put, s.keep.store().map_or(0, |store| store.written.load(Relaxed)));
        },
    ),
    figure("lightsout_store_failed_total", "Events that the store's disk did not take.", Counter, |s, put| {
        number(put, s.keep.store().map_or(0, |store| store.refused.load(Relaxed)));
    }),
    figure(
        "lightsout_store_missing_total",
        "Events of the store that were missing when it was opened.",
        Counter,
        |s, put| {
            number(put, s.keep.missing());
        },
    ),
    figure("lightsout_traffic_lines_total", "Lines of the traffic log on disk.", Counter, |s, put| {
        number(put, s.traffic.lines.load(Relaxed));
    }),
    figure(
        "lightsout_traffic_failed_total",
        "Lines of the traffic log that the disk did not take.",
        Counter,
        |s, put| {
            number(put, s.traffic.failed.load(Relaxed));
        },
    ),
    figure(
        "lightsout_traffic_dropped_total",
        "Files of the traffic log that made room for newer ones.",
        Counter,
        |s, put| {
            number(put, s.traffic.dropped.load(Relaxed));
        },
    ),
    figure("lightsout_tags_quarantined", "Tags a device refuses, asked for now and then.", Gauge, |s, put| {
        per_line(s, put, |l| l.quarantined.load(Relaxed))
    }),
    figure("lightsout_tags_good", "Tags whose quality is Good.", Gauge, |s, put| {
        per_line(s, put, |l| l.quality[0].load(Relaxed))
    }),
    figure("lightsout_tags_uncertain", "Tags whose quality is Uncertain.", Gauge, |s, put| {
        per_line(s, put, |l| l.quality[1].load(Relaxed))
    }),
    figure("lightsout_tags_bad", "Tags whose quality is Bad.", Gauge, |s, put| {
        per_line(s, put, |l| l.quality[2].load(Relaxed))
    }),
    figure("lightsout_samples_produced_total", "Values promised to the broker.", Counter, |s, put| {
        number(put, s.spool.stats.produced.load(Relaxed));
    }),
    figure("lightsout_samples_delivered_total", "Values the broker has acknowledged.", Counter, |s, put| {
        number(put, s.spool.stats.delivered.load(Relaxed));
    }),
    figure(
        "lightsout_samples_lost_total",
        "Values lost, by reason; produced are delivered, waiting or lost.",
        Counter,
        |s, put| {
            for (reason, _, values) in s.spool.stats.lost.by_reason() {
                put(Some(("reason", reason)), Reading::Number(values as f64));
            }
        },
    ),
    figure("lightsout_messages_lost_total", "Messages lost, by reason.", Counter, |s, put| {
        for (reason, messages, _) in s.spool.stats.lost.by_reason() {
            put(Some(("reason", reason)), Reading::Number(messages as f64));
        }
    }),
    figure("lightsout_samples_waiting", "Values waiting for the broker.", Gauge, |s, put| {
        number(put, s.spool.stats.waiting_values.load(Relaxed));
    }),
    figure("lightsout_spool_samples", "Messages waiting for the broker.", Gauge, |s, put| {
        number(put, s.spool.stats.waiting.load(Relaxed));
    }),
    figure("lightsout_spool_bytes", "Bytes of messages waiting, on disk and in memory.", Gauge, |s, put| {
        number(put, s.spool.status().waiting_bytes);
    }),
    figure(
        "lightsout_spool_used_bytes",
        "Bytes the spool takes, on disk and in memory: a segment goes when all in it is acknowledged.",
        Gauge,
        |s, put| {
            number(put, s.spool.status().used_bytes);
        },
    ),
    figure("lightsout_spool_capacity_bytes", "Bytes the spool may take.", Gauge, |s, put| {
        number(put, s.spool.status().capacity_bytes);
    }),
    figure(
        "lightsout_spool_lasts_seconds",
        "How long it lasts without a broker, at the present rate; +Inf: for ever.",
        Gauge,
        |s, put| {
            put(None, Reading::Number(s.spool.status().lasts_s.unwrap_or(f64::INFINITY)));
        },
    ),
    figure(
        "lightsout_spool_full_seconds",
        "Time until it is full, or its disk, at the present rates; +Inf: never.",
        Gauge,
        |s, put| {
            put(None, Reading::Number(s.spool.status().full_in_s.unwrap_or(f64::INFINITY)));
        },
    ),
    figure(
        "lightsout_spool_drained_seconds",
        "Time until nothing waits, at the present rates; +Inf: never.",
        Gauge,
        |s, put| {
            put(None, Reading::Number(s.spool.status().drained_in_s.unwrap_or(f64::INFINITY)));
        },
    ),
    figure("lightsout_spool_disk_faults_total", "Writes to the spool's disk that failed.", Counter, |s, put| {
        number(put, s.spool.stats.disk_faults.load(Relaxed));
    }),
    figure(
        "lightsout_spool_failing",
        "1 while the spool's disk takes nothing: records wait in memory.",
        Gauge,
        |s, put| {
            flag(put, s.spool.stats.is_failing.load(Relaxed));
        },
    ),
    figure("lightsout_spool_written_bytes_total", "Bytes written to the spool's disk.", Counter, |s, put| {
        number(put, s.spool.stats.written_bytes.load(Relaxed));
    }),
    figure("lightsout_spool_commit_seconds", "Time of a commit: one write and one fsync.", Distribution, |s, put| {
        put(None, Reading::Distribution(&s.spool.stats.commit, Edges::Fine));
    }),
    figure("lightsout_mqtt_connected", "1 while the broker is connected.", Gauge, |s, put| {
        flag(put, s.mqtt.connected.load(Relaxed))
    }),
    figure("lightsout_mqtt_connects_total", "Connections to the broker made.", Counter, |s, put| {
        number(put, s.mqtt.connects.load(Relaxed));
    }),
    figure(
        "lightsout_mqtt_failures_total",
        "Connections to the broker lost, and tries that failed.",
        Counter,
        |s, put| {
            number(put, s.mqtt.failures.load(Relaxed));
        },
    ),
    figure("lightsout_mqtt_broker", "Which broker is connected, by preference: 0 is the first.", Gauge, |s, put| {
        number(put, s.mqtt.broker.load(Relaxed));
    }),
    figure(
        "lightsout_delivery_stalled_seconds",
        "How long messages have waited for a connected broker without any having gone.",
        Gauge,
        |s, put| put(None, Reading::Number(s.mqtt.stalled_ms.load(Relaxed) as f64 / 1000.0)),
    ),
    figure("lightsout_mqtt_published_total", "Messages published, those sent again included.", Counter, |s, put| {
        number(put, s.mqtt.published.load(Relaxed));
    }),
    figure(
        "lightsout_mqtt_postponed_total",
        "Messages the broker did not take for now; they are sent again.",
        Counter,
        |s, put| {
            number(put, s.mqtt.postponed.load(Relaxed));
        },
    ),
    figure(
        "lightsout_mqtt_taken_over_total",
        "Connections that ended because another client came with our name.",
        Counter,
        |s, put| {
            number(put, s.mqtt.taken_over.load(Relaxed));
        },
    ),
    figure(
        "lightsout_mqtt_version",
        "1 for the version of MQTT that is spoken; 0 for the other, and for both without a connection.",
        Gauge,
        |s, put| {
            let (is_there, is_v5) = (s.mqtt.connected.load(Relaxed), s.mqtt.is_v5.load(Relaxed));
            for (version, spoken) in [("5", is_v5), ("3.1.1", !is_v5)] {
                put(Some(("version", version)), Reading::Number(f64::from(u8::from(is_there && spoken))));
            }
        },
    ),
    figure(
        "lightsout_mqtt_message_max_bytes",
        "Topic and payload of a message that is worth making for the brokers that are known, bytes; 0: they set no limit; 1: none is known, each value is a message.",
        Gauge,
        |s, put| {
            number(put, s.mqtt.message_max.load(Relaxed));
        },
    ),
    figure(
        "lightsout_alarms_active",
        "Alarms that are raised and not shelved, by row of the table.",
        Gauge,
        |s, put| {
            for (alarm, [active, ..]) in s.alarms.counts() {
                put(Some(("alarm", alarm)), Reading::Number(active as f64));
            }
        },
    ),
    figure(
        "lightsout_alarm",
        "1 for each alarm that is raised and not shelved: row of the table, and the machine, line or device it is about.",
        Gauge,
        |s, put| {
            for (alarm, subject) in s.alarms.active() {
                put(Some(("alarm", alarm)), Reading::Labelled(&[("subject", subject.as_str())], 1.0));
            }
        },
    ),
    figure("lightsout_alarms_unacknowledged", "Alarms that nobody has acknowledged.", Gauge, |s, put| {
        number(put, s.alarms.counts().iter().map(|(_, [_, unacknowledged, _])| unacknowledged).sum());
    }),
    figure("lightsout_alarms_shelved", "Alarms that are shelved.", Gauge, |s, put| {
        number(put, s.alarms.counts().iter().map(|(_, [.., shelved])| shelved).sum());
    }),
    figure(
        "lightsout_certificate_days_left",
        "Days until a certificate runs out: ours, of authorities, and what peers have shown; below 0: it has.",
        Gauge,
        |s, put| {
            for certificate in s.certificates.all().iter() {
                put(Some(("certificate", &certificate.name)), Reading::Number(certificate.days_left));
            }
        },
    ),
    figure("lightsout_http_connections", "Connections to the page and the API right now.", Gauge, |s, put| {
        number(put, s.http.connections.load(Relaxed) as u64);
    }),
    figure(
        "lightsout_http_displaced_total",
        "Connections closed to make room for those of others: somebody opens too many.",
        Counter,
        |s, put| {
            number(put, s.http.displaced.load(Relaxed));
        },
    ),
    figure("lightsout_live_clients", "Pages and programs that look on right now.", Gauge, |s, put| {
        number(put, s.live.clients.load(Relaxed) as u64);
    }),
    figure(
        "lightsout_live_frames_total",
        "Live frames made; each is made once, however many look on.",
        Counter,
        |s, put| {
            number(put, s.live.frames.load(Relaxed));
        },
    ),
    figure("process_cpu_seconds_total", "CPU time the process has taken, user and system.", Counter, |_, put| {
        of_process(put, Some(process::cpu_seconds()));
    }),
    figure("process_resident_memory_bytes", "Memory of the process that is in RAM.", Gauge, |_, put| {
        of_process(put, process::resident_bytes());
    }),
    figure("process_virtual_memory_bytes", "Memory the process has addresses for.", Gauge, |_, put| {
        of_process(put, process::virtual_bytes());
    }),
    figure("process_threads", "Threads of the process.", Gauge, |_, put| {
        of_process(put, process::threads());
    }),
    figure("process_open_fds", "Files and sockets the process has open.", Gauge, |_, put| {
        of_process(put, process::open_fds());
    }),
    figure("process_max_fds", "Files and sockets the process may have open.", Gauge, |_, put| {
        of_process(put, process::max_fds());
    }),
    figure("process_start_time_seconds", "When the process was started, seconds since 1970.", Gauge, |_, put| {
        of_process(put, process::start_time_s());
    }),
];
