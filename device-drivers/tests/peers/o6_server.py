"""An OPC UA server by open62541, for the client's peer test: python3 o6_server.py

Prints "ready PORT" once it serves. Told "again" on its standard input it deletes Foo and makes it again with 10, and then writes 11,
12, .. to it, as a controller does whose program is loaded anew. It ends with its standard input.
"""

import socket
import sys
import threading
import time

import o6
from o6.ns import ns0


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


port = free_port()
server = o6.Server(port=port, applicationUri="urn:lightsout:o6")


def add(name, value):
    return server.addVariable(name, server.objectsNode, value, nodeId=f"ns=1;s={name}")


foo = add("Foo", o6.Double(1.0))
tick = add("Tick", o6.Int32(0))
add("Row", [o6.Double(1.5), o6.Double(2.5)])
add("Words", [o6.UInt16(1), o6.UInt16(2)])
add("Text", "Grüße")
add("Label", o6.LocalizedText("bereit", "de"))
add("Flag", True)
add("Limits", ns0.datatypes.Range(low=0.0, high=1.0))
add("Long", [o6.Int32(n) for n in range(5000)])

told = threading.Event()


def listen():
    for line in sys.stdin:
        if line.strip() == "again":
            told.set()


server.start()
print("ready", port, flush=True)
ears = threading.Thread(target=listen)
ears.start()
count = value = 0
while ears.is_alive():
    count += 1
    tick(o6.Int32(count))
    if told.is_set() and value == 0:
        value = 10
        server.deleteNode("ns=1;s=Foo")
        foo = add("Foo", o6.Double(value))
    elif value > 0 and count % 50 == 0:
        value += 1
        foo(o6.Double(value))
    time.sleep(0.1)
server.stop()
