"""What FRR and Pacemaker are told, as far as it can be judged without them."""

from __future__ import annotations

from collections import Counter
from xml.etree import ElementTree

from tunnelswitch_lab.bench import frr, pacemaker, routed
from tunnelswitch_lab.layout import Layout

LAB = Layout("x")


def test_only_servers_announce_the_service_and_only_that() -> None:
    primary, _, gateway = LAB.sites
    link = routed.links(LAB)[0]
    at_server = frr.speaker(primary, link.address(primary), [(link.address(gateway), gateway, 200)], 10)
    at_gateway = frr.speaker(gateway, link.address(gateway), [(link.address(primary), primary, 200)], None)
    assert "redistribute kernel route-map service" in at_server
    assert "permit 192.168.77.10/32" in at_server
    assert "redistribute" not in at_gateway
    assert f"neighbor {link.address(primary)} weight 200" in at_gateway
    assert ("bfd" in at_server, "bfd" in at_gateway) == (True, False)


def test_links_do_not_share_addresses() -> None:
    links = routed.links(LAB)
    ends = [(link.address(site), link.mac(site)) for link in links for site in (link.server, LAB.gateway)]
    assert len({address for address, _ in ends}) == len({mac for _, mac in ends}) == 4
    assert all(len(link.bridge) <= 15 for link in links)


def test_pacemaker_watches_every_copy_and_serves_nothing_from_the_gateway() -> None:
    root = ElementTree.fromstring(pacemaker.cib(100))
    identities = Counter(element.attrib["id"] for element in root.iter() if "id" in element.attrib)
    assert max(identities.values()) == 1
    (monitor,) = root.findall(".//primitive[@id='copy']/operations/op")
    assert monitor.attrib["interval"] == "100ms"
    banned = {one.attrib["rsc"] for one in root.iter("rsc_location") if one.attrib["node"] == "gateway"}
    assert banned == {"copies", "address"}


def test_corosync_waits_three_intervals_for_its_token() -> None:
    text = pacemaker.corosync_configuration(LAB, 100)
    assert "token: 300" in text
    assert text.count("ring0_addr") == 3
