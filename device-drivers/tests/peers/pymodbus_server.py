"""A Modbus TCP server by other people, for tests: units 1 and 2, each holding register holds its own number plus 1000 times
the unit, input registers twice their number, every third coil is set. Prints "ready PORT" and serves until its input ends.
A number as argument is how many seconds it takes for each request; what comes meanwhile it drops."""

import asyncio
import socket
import sys
import threading

from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice


DELAY = float(sys.argv[1]) if len(sys.argv) > 1 else 0.0


async def slowly(*_request):
    await asyncio.sleep(DELAY)


def device(unit):
    coils = SimData(0, values=[n % 3 == 0 for n in range(64)], datatype=DataType.BITS)
    discretes = SimData(0, values=[n % 2 == 0 for n in range(64)], datatype=DataType.BITS)
    holdings = SimData(0, values=[unit * 1000 + n for n in range(300)], datatype=DataType.REGISTERS)
    inputs = SimData(0, values=[2 * n for n in range(300)], datatype=DataType.REGISTERS)
    return SimDevice(unit, simdata=([coils], [discretes], [holdings], [inputs]), action=slowly if DELAY else None)


async def main():
    probe = socket.socket()
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
    probe.close()
    server = ModbusTcpServer([device(1), device(2)], address=("127.0.0.1", port))
    await server.serve_forever(background=True)
    print(f"ready {port}", flush=True)
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    threading.Thread(target=lambda: (sys.stdin.read(), loop.call_soon_threadsafe(ended.set)), daemon=True).start()
    await ended.wait()
    await server.shutdown()


asyncio.run(main())
