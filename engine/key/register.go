package key

import (
	"fmt"
	"syscall"

	"ifipsec/engine/algorithm"
	"ifipsec/engine/esp"
	"ifipsec/engine/pfkey"
)

// register lets a session hear of ACQUIRE and EXPIRE, and answers with the
// algorithms there are; without an SA type it only answers (SADB_REGISTER).
// EEXIST if the session has registered for the type before.
func (h *Handler) register(s *Session, m *pfkey.Message) (answer, error) {
	if m.SAType != pfkey.SATypeUnspec {
		if s.registered[m.SAType] {
			return answer{}, fmt.Errorf("this socket has registered for %v: %w", m.SAType, syscall.EEXIST)
		}
		if len(s.registered) == 0 {
			h.registered.Add(1)
		}
		s.registered[m.SAType] = true
	}
	reply := echo(m)
	reply.Exts = h.supported
	return answer{message: reply, others: registered}, nil
}

// supported lists the algorithms that packets can be protected with. As on
// FreeBSD the list does not depend on the SA type, and key lengths are those of
// the cipher, without salt.
func supported() []pfkey.Extension {
	auth := &pfkey.Supported{Kind: pfkey.ExtSupportedAuth}
	for _, a := range algorithm.Authentications() {
		if works(algorithm.EncryptNull, 0, a.ID, a.Key.Min) {
			auth.Algorithms = append(auth.Algorithms, pfkey.SupportedAlgorithm{
				ID: a.ID, MinBits: uint16(a.Key.Min), MaxBits: uint16(a.Key.Max),
			})
		}
	}
	encrypt := &pfkey.Supported{Kind: pfkey.ExtSupportedEncrypt}
	for _, e := range algorithm.Encryptions() {
		if works(e.ID, e.Key.Max, algorithm.AuthNone, 0) {
			encrypt.Algorithms = append(encrypt.Algorithms, pfkey.SupportedAlgorithm{
				ID: e.ID, IVLen: uint8(e.IVLen),
				MinBits: uint16(e.Key.Min - e.SaltBits), MaxBits: uint16(e.Key.Max - e.SaltBits),
			})
		}
	}
	return []pfkey.Extension{auth, encrypt}
}

// works says whether ESP can be done with these algorithms, some of which are
// known by name only.
func works(encrypt uint8, encryptBits int, auth uint8, authBits int) bool {
	_, err := esp.New(esp.Config{
		SPI:        1 << 8,
		Encryption: encrypt, EncryptionKey: make([]byte, encryptBits/8),
		Authentication: auth, AuthenticationKey: make([]byte, authBits/8),
	})
	return err == nil
}
