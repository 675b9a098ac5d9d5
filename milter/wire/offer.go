package wire

import "encoding/binary"

// Offer is what an MTA lets a filter do (SMFIF_*) and what of the protocol it can
// leave out or change (SMFIP_*); or what was agreed on of that.
type Offer struct{ Actions, Protocol uint32 }

// setSymList is the action of asking for macros of one's own choice
// (SMFIF_SETSYMLIST).
const setSymList = 0x100

// minVersion is the version that the library answers with.
const minVersion = 2

// offerHead is the length of the three numbers at the start of a negotiation.
const offerHead = 12

// readOffer reads the payload of a negotiation. MTAs offer by their protocol
// version: Postfix has milter_protocol, and version 2 knows neither leading space
// nor commands without a reply nor lists of macros.
func readOffer(payload []byte) (version uint32, o Offer, err error) {
	version = binary.BigEndian.Uint32(payload)
	if version < minVersion {
		return 0, Offer{}, protocolError("the MTA speaks protocol version %d, at least %d is needed", version, minVersion)
	}
	return version, Offer{binary.BigEndian.Uint32(payload[4:]), binary.BigEndian.Uint32(payload[8:])}, nil
}

// agree cuts the library's answer, a whole frame, down to what the MTA offered:
// the library never looks at the offer, and an MTA takes no answer that asks for
// more. It returns what was agreed on.
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
