package esp

// MaxPayload returns the largest payload whose ESP packet, from the header to
// the end of the ICV, has at most size octets; it is negative if there is none.
// Padding is what makes it less than what is left beside header, IV and ICV.
func (sa *SA) MaxPayload(size int) int {
	room := size - sa.HeaderLen() - sa.icvLen
	if room < 0 {
		return -1
	}
	return room&^(sa.alignOut-1) - trailerLen
}
