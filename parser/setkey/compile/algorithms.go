package compile

import (
	"encoding/hex"

	"ifipsec/engine/algorithm"
	"ifipsec/engine/pfkey"
	"ifipsec/parser/setkey"

	"github.com/alecthomas/participle/v2/lexer"
)

// algorithms are those of an SA, with their keys.
type algorithms struct {
	encrypt, auth       uint8
	encryptKey, authKey *pfkey.Key
	flags               pfkey.SAFlags
}

func (c *compiler) algorithms(a *setkey.AlgorithmSpec, old pfkey.SAFlags) (*algorithms, error) {
	result := &algorithms{}
	var err error
	switch {
	case a == nil:
		return nil, errIncomplete
	case a.ESP != nil:
		if err = c.encryption(a.ESP.Encryption, old, result); err == nil && a.ESP.Authentication != nil {
			err = authentication(a.ESP.Authentication, result)
		}
	case a.AH != nil:
		err = authentication(a.AH.Authentication, result)
	case a.IPComp != nil && !missing(a.IPComp.Compression):
		found, _ := algorithm.CompressionByName(a.IPComp.Compression.Value)
		result.encrypt = found.ID
		if a.IPComp.RawCPI {
			result.flags = pfkey.SAFlagRawCPI
		}
	default:
		err = errIncomplete
	}
	return result, err
}

func (c *compiler) encryption(e *setkey.EncryptionAlg, old pfkey.SAFlags, result *algorithms) error {
	if e == nil {
		return errIncomplete
	}
	if !missing(e.Keyless) {
		c.warn(e.Keyless, e.Keyless.Pos, "WARNING: obsolete algorithm", "%q is obsolete: it encrypts nothing, as does null", e.Keyless.Value)
		result.encrypt = algorithm.EncryptNull
		return nil
	}
	found, known := algorithm.EncryptionByName(e.Name.Value)
	if !known || missing(e.Key) {
		return errIncomplete
	}
	switch e.Name.Value {
	case "des-deriv":
		if old != 0 {
			return failAt(e.Key, e.Name.Pos, "algorithm mismatched", "des-deriv is not for esp-old")
		}
		result.flags = pfkey.SAFlagDeriv
	case "des-32iv":
		if old == 0 {
			return failAt(e.Key, e.Name.Pos, "algorithm mismatched", "des-32iv is for esp-old only")
		}
		result.flags = pfkey.SAFlagIV4B
	}
	key, err := keyString(pfkey.ExtKeyEncrypt, e.Key)
	if err != nil {
		return err
	}
	if err := found.CheckKey(key.Bits); err != nil {
		return fail(e.Key, "Invalid key length", "%v", err)
	}
	result.encrypt, result.encryptKey = found.ID, key
	return nil
}

func authentication(a *setkey.AuthenticationAlg, result *algorithms) error {
	if a == nil {
		return errIncomplete
	}
	if !missing(a.Keyless) {
		result.auth = algorithm.AuthNull
		return nil
	}
	found, known := algorithm.AuthenticationByName(a.Name.Value)
	if !known || missing(a.Key) {
		return errIncomplete
	}
	key, err := keyString(pfkey.ExtKeyAuth, a.Key)
	if err != nil {
		return err
	}
	if err := found.CheckKey(key.Bits); err != nil {
		message := "Invalid key length"
		if found.ID == algorithm.AuthTCPMD5 {
			message = "" // FreeBSD's setkey gives no reason
		}
		return fail(a.Key, message, "%v", err)
	}
	result.auth, result.authKey = found.ID, key
	return nil
}

// keyString reads a key. An odd number of hexadecimal digits gives a first
// byte of one digit.
func keyString(kind pfkey.ExtType, t lexer.Token) (*pfkey.Key, error) {
	var key []byte
	if t.Value[0] == '"' {
		key = []byte(t.Value[1 : len(t.Value)-1])
	} else {
		digits := t.Value[2:]
		if len(digits)%2 != 0 {
			digits = "0" + digits
		}
		var err error
		if key, err = hex.DecodeString(digits); err != nil {
			return nil, fail(t, "Invalid argument", "the key is not hexadecimal")
		}
	}
	return &pfkey.Key{Kind: kind, Bits: 8 * len(key), Key: key}, nil
}
