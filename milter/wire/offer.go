package wire

import "encoding/binary"

// Offer is the set of actions (SMFIF_*) and protocol options (SMFIP_*) that an MTA
// offers to a filter, or the part of them that was agreed on.
type Offer struct{ Actions, Protocol uint32 }

// setSymList is the action SMFIF_SETSYMLIST: the filter chooses the macros.
const setSymList = 0x100

// minVersion is the version that the library answers with.
const minVersion = 2

// offerHead is the length of the three numbers at the start of a negotiation.
const offerHead = 12

// readOffer reads the payload of a negotiation. The offer depends on the protocol
// version of the MTA (milter_protocol in Postfix). Version 2 has no leading space, no
// commands without a reply and no lists of macros.
func readOffer(payload []byte) (version uint32, o Offer, err error) {
	version = binary.BigEndian.Uint32(payload)
	if version < minVersion {
		return 0, Offer{}, protocolError("the MTA speaks protocol version %d, at least %d is needed", version, minVersion)
	}
	return version, Offer{binary.BigEndian.Uint32(payload[4:]), binary.BigEndian.Uint32(payload[8:])}, nil
}

// agree reduces the library's answer, a whole frame, to what the MTA offered, and
// returns that. The library ignores the offer, and an MTA refuses an answer that asks
// for more.
func agree(answer []byte, offered Offer) ([]byte, Offer) {
	const head = 5 // length and command
	if len(answer) < head+offerHead || Command(answer[4]) != Negotiate {
		return answer, Offer{} // the library ends the connection
	}
	numbers := answer[head:]
	agreed := Offer{
		Actions:  binary.BigEndian.Uint32(numbers[4:]) & offered.Actions,
		Protocol: binary.BigEndian.Uint32(numbers[8:]) & offered.Protocol,
	}
	binary.BigEndian.PutUint32(numbers[4:], agreed.Actions)
	binary.BigEndian.PutUint32(numbers[8:], agreed.Protocol)
	if agreed.Actions&setSymList == 0 { // the lists follow the numbers
		answer = answer[:head+offerHead]
		binary.BigEndian.PutUint32(answer, offerHead+1)
	}
	return answer, agreed
}
