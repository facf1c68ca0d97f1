"""A host application by a library that is not ours (pysparkplug): understands births, asks for a rebirth, writes a value."""
import json, sys, time
import pysparkplug as spb

port = int(sys.argv[1])
births, values, order = {}, {}, []

def note(_, message):
    topic, payload = message.topic, message.payload
    order.append(topic.message_type.value)
    metrics = getattr(payload, "metrics", ()) or ()
    if topic.message_type in (spb.MessageType.NBIRTH, spb.MessageType.DBIRTH):
        births[topic.device_id] = [m.name for m in metrics]
    for metric in metrics:
        if metric.name:
            values[(topic.device_id, metric.name)] = metric.value

host = spb.Client(client_id="host")
host.connect("127.0.0.1", port=port, blocking=False)

def listen(kinds, devices):
    for kind in kinds:
        for device in devices:
            topic = spb.Topic(message_type=kind, group_id="plant", edge_node_id="gw", device_id=device)
            host.subscribe(topic, spb.QoS.AT_LEAST_ONCE, note)

# Births first: without them this library cannot read data that has aliases only.
devices = ("m1", "m2", "still")
listen((spb.MessageType.NBIRTH,), (None,))
listen((spb.MessageType.DBIRTH,), devices)
time.sleep(1)

def command(kind, device, name, datatype, value):
    now = spb.get_current_timestamp()
    payload = kind(timestamp=now, metrics=(spb.Metric(timestamp=now, name=name, datatype=datatype, value=value),))
    which = spb.MessageType.NCMD if device is None else spb.MessageType.DCMD
    topic = spb.Topic(message_type=which, group_id="plant", edge_node_id="gw", device_id=device)
    host.publish(spb.Message(topic=topic, payload=payload, qos=spb.QoS.AT_LEAST_ONCE, retain=False), include_dtypes=True)

def until(done, limit=15):
    end = time.time() + limit
    while time.time() < end and not done():
        time.sleep(0.05)
    return done()

command(spb.NCmd, None, "Node Control/Rebirth", spb.DataType.BOOLEAN, True)
born = until(lambda: {None, "m1", "m2", "still"} <= births.keys())
listen((spb.MessageType.NDATA, spb.MessageType.NDEATH), (None,))
listen((spb.MessageType.DDATA, spb.MessageType.DDEATH), devices)
time.sleep(0.5)
command(spb.DCmd, "m1", "speed", spb.DataType.UINT64, 321)
time.sleep(1.5)
order.clear()
births.clear()
time.sleep(1)
command(spb.NCmd, None, "Node Control/Rebirth", spb.DataType.BOOLEAN, True)
again = until(lambda: {None, "m1", "m2", "still"} <= births.keys())
print(json.dumps({
    "born": born, "again": again, "m1": sorted(births.get("m1", [])), "node": sorted(births.get(None, [])),
    "speed": values.get(("m1", "speed")), "a": values.get(("m1", "a")),
}))
host.disconnect()
