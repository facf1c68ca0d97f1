"""An OPC UA client by open62541, against the bank at the given endpoint: browses, reads, writes, subscribes. Prints one JSON object."""

import json
import sys
import time

import o6

with o6.Client(sys.argv[1]) as client:
    namespaces = client.read("i=2255")
    index = list(namespaces).index("urn:lightsout:plc-sim:bank")
    children = client.browse(f"ns={index};s=Bank")
    names = sorted(str(child.nodeId).split("s=")[-1] for child in children)
    values = [float(client.read(f"ns={index};s=V.{n}")) for n in range(3)]
    written = client.write(f"ns={index};s=W.0", o6.Double(4.5))
    back = float(client.read(f"ns={index};s=W.0"))
    changes = []
    client.monitor(f"ns={index};s=V.0", lambda value: changes.append(float(value)))
    for _ in range(200):
        if len(set(changes)) >= 3:
            break
        time.sleep(0.1)
    found = {"names": names, "values": values, "written": str(written), "back": back, "changes": len(set(changes))}
    print(json.dumps(found))
