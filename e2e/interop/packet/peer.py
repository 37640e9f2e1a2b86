"""Scapy's opinion on ESP packets.

Reads one JSON object: the SAs, and a capture. Opens every ESP packet of the
capture with Scapy, and makes packets of its own for those SAs that ask for it.
Writes one JSON object: per SPI what was inside, and the packets made.
"""
import json
import struct
import sys

from scapy.all import ICMP, IP, UDP, Ether, ICMPv6EchoRequest, IPv6, Raw, rdpcap
from scapy.layers.ipsec import ESP, SecurityAssociation, _ESPPlain

# For IKE's messages Scapy looks at what is in UDP port 4500 itself.
NON_ESP = b"\0\0\0\0"


def association(sa):
    ip = IPv6 if ":" in sa["src"] else IP
    natt = UDP(sport=sa["natt"][0], dport=sa["natt"][1]) if sa["natt"] else None
    return SecurityAssociation(
        ESP, spi=sa["spi"],
        crypt_algo=sa["crypt"], crypt_key=bytes.fromhex(sa["cryptKey"]),
        auth_algo=sa["auth"], auth_key=bytes.fromhex(sa["authKey"]),
        tunnel_header=ip(src=sa["src"], dst=sa["dst"]), nat_t_header=natt,
        esn_en=sa["esn"], esn=0)


def esp_of(frame):
    """The outer IP packet with ESP right in it or in UDP, and its SPI."""
    ip = frame.getlayer(IPv6) or frame.getlayer(IP)
    if ip is None:
        return None, None
    payload = bytes(ip.payload)
    if UDP in frame:
        payload = payload[8:]
        if payload[:4] == NON_ESP:
            return None, None
    elif ESP not in frame:
        return None, None
    return ip, struct.unpack(">I", payload[:4])[0]


def inside(sa, ip):
    packet = association(sa).decrypt(ip)
    packet = packet.__class__(bytes(packet))
    kind = bytes(packet.payload)[0]
    return {"src": packet.src, "dst": packet.dst, "type": kind, "size": len(packet)}


def opened(sas, capture):
    by_spi = {sa["spi"]: sa for sa in sas}
    out = {}
    for frame in rdpcap(capture):
        ip, spi = esp_of(frame)
        if ip is None or spi not in by_spi:
            continue
        try:
            found = inside(by_spi[spi], ip)
        except Exception as e:  # whatever is wrong is the test's to tell
            found = {"error": "%s: %s" % (type(e).__name__, e)}
        out.setdefault(str(spi), []).append(found)
    return out


def seal(sa, number, data, padlen, next_header):
    """An ESP packet with padding and next header of one's choice."""
    s = association(sa)
    esp = _ESPPlain(spi=sa["spi"], seq=number, iv=s.crypt_algo.generate_iv(),
                    data=data, padding=bytes(range(1, padlen + 1)), padlen=padlen, nh=next_header)
    extra = {"esn_en": sa["esn"], "esn": 0}
    sealed = s.crypt_algo.encrypt(s, esp, s.crypt_key, s.crypt_icv_size or s.auth_algo.icv_size, **extra)
    s.auth_algo.sign(sealed, s.auth_key, **extra)
    return bytes(sealed)


def outer(sa, esp, **change):
    ip = IPv6 if ":" in sa["src"] else IP
    header = ip(src=change.get("src", sa["src"]), dst=sa["dst"])
    if ip is IP:
        header.ttl = 64
    if sa["natt"]:
        # Without a checksum in IPv4 (RFC 3948, section 2.1).
        udp = UDP(sport=sa["natt"][0], dport=sa["natt"][1])
        if ip is IP:
            udp.chksum = 0
        return header / udp / Raw(esp)
    number = 50
    if ip is IP:
        header.proto = number
    else:
        header.nh = number
    return header / Raw(esp)


def echo(sa, six):
    if six:
        return bytes(IPv6(src=sa["inner6"][0], dst=sa["inner6"][1]) / ICMPv6EchoRequest(id=77, data=b"scapy" * 20))
    return bytes(IP(src=sa["inner4"][0], dst=sa["inner4"][1]) / ICMP(id=77) / (b"scapy" * 20))


def padlen_for(sa, size, more=0):
    """Padding up to the block, and more blocks."""
    block = max(association(sa).crypt_algo.block_size, 4)
    return -(size + 2) % block + more * block


def made(sa):
    """Packets that are to be answered, and if the SA says so, that are not, with
    the sequence numbers from 100 on."""
    packets = []

    def add(what, esp, **change):
        frame = Ether(src=sa["frame"][0], dst=sa["frame"][1]) / outer(sa, esp, **change)
        packets.append({"what": what, "frame": bytes(frame).hex()})

    numbers = iter(range(100, 200))

    def whole(data, next_header, more=0):
        return seal(sa, next(numbers), data, padlen_for(sa, len(data), more), next_header)

    four, six = echo(sa, False), echo(sa, True)
    last = whole(four, 4)
    add("IPv4", last)
    add("IPv6", whole(six, 41))
    add("more padding", whole(four, 4, more=(255 - 16) // max(association(sa).crypt_algo.block_size, 4)))
    add("TFC padding", whole(four + bytes(333), 4))
    if not sa["hostile"]:
        return packets
    add("replayed", last)
    add("dummy", whole(bytes(range(77)), 59))
    add("IPv4 said to be IPv6", whole(four, 41))
    add("ICMP without IP", whole(four[20:], 1))
    add("longer inside than it is", whole(four[:60], 4))
    add("half an inner header", whole(four[:10], 4))
    add("unknown SPI", bytes([0x7f]) + whole(four, 4)[1:])
    add("reserved SPI", bytes([0, 0, 0, 200]) + whole(four, 4)[4:])
    add("too old", seal(sa, 2, four, padlen_for(sa, len(four)), 4))
    add("number 0", seal(sa, 0, four, padlen_for(sa, len(four)), 4))
    if not sa["natt"]:
        # A peer behind a NAT may come from elsewhere.
        add("from a stranger", whole(four, 4), src="fd00::77" if ":" in sa["src"] else "192.168.0.77")
    wrong = bytearray(whole(four, 4))
    wrong[-1] ^= 1
    add("wrong ICV", bytes(wrong))
    changed = bytearray(whole(four, 4))
    changed[len(changed) // 2] ^= 0x80
    add("changed inside", bytes(changed))
    for size in range(1, 34):
        add("truncated", whole(four, 4)[:size] if size > 8 else bytes([0x70] * size))
    add("IPv4", whole(four, 4))
    return packets


def main():
    ask = json.load(sys.stdin)
    answer = {"opened": opened(ask["sas"], ask["capture"]), "made": {}}
    for sa in ask["sas"]:
        if sa["frame"]:
            answer["made"][str(sa["spi"])] = made(sa)
    json.dump(answer, sys.stdout)


main()
