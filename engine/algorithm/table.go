package algorithm

// The numbers are those of linux/pfkeyv2.h; where Linux has none, those of
// FreeBSD's sys/net/pfkeyv2.h.
const (
	EncryptNone             = 0
	EncryptDES              = 2
	Encrypt3DES             = 3
	EncryptCAST128          = 6
	EncryptBlowfish         = 7
	EncryptNull             = 11
	EncryptAESCBC           = 12
	EncryptAESCTR           = 13
	EncryptChaCha20Poly1305 = 15
	EncryptAESGCM16         = 20
	EncryptCamellia         = 22
	EncryptTwofish          = 253

	AuthNone             = 0
	AuthHMACMD5          = 2
	AuthHMACSHA1         = 3
	AuthHMACSHA256       = 5
	AuthHMACSHA384       = 6
	AuthHMACSHA512       = 7
	AuthHMACRIPEMD160    = 8
	AuthAESXCBC          = 9
	AuthChaCha20Poly1305 = 14
	AuthKeyedMD5         = 249
	AuthKeyedSHA1        = 250
	AuthNull             = 251
	AuthTCPMD5           = 252

	CompressOUI     = 1
	CompressDeflate = 2
	CompressLZS     = 3
)

const (
	weakBlock64 = "64-bit blocks collide after a few gigabytes under one key"
	weakDES     = "56-bit keys can be searched"
	weakMD5     = "MD5 is broken"
	weakKeyed   = "a hash with the key around the data is not a proven MAC, and RFC 2403 and 2404 replaced it"
)

var encryptions = []*Encryption{
	{
		ID: EncryptDES, Name: "des-cbc", Aliases: []string{"des-deriv", "des-32iv"}, Era: FreeBSD11, Weak: weakDES, // RFC 2405
		Key: KeyBits{64, 64, 8}, IVLen: 8, BlockSize: 8, Align: 8,
	},
	{
		ID: Encrypt3DES, Name: "3des-cbc", Era: FreeBSD11, Weak: weakBlock64, // RFC 2451
		Key: KeyBits{192, 192, 8}, IVLen: 8, BlockSize: 8, Align: 8,
	},
	{
		ID: EncryptCAST128, Name: "cast128-cbc", Era: FreeBSD11, Weak: weakBlock64, // RFC 2451
		Key: KeyBits{40, 128, 8}, IVLen: 8, BlockSize: 8, Align: 8,
	},
	{
		ID: EncryptBlowfish, Name: "blowfish-cbc", Era: FreeBSD11, Weak: weakBlock64, // RFC 2451
		Key: KeyBits{40, 448, 8}, IVLen: 8, BlockSize: 8, Align: 8,
	},
	{
		ID: EncryptNull, Name: "null", Aliases: []string{"simple"}, Era: BothEras, // RFC 2410
		Key: KeyBits{0, 2048, 8}, BlockSize: 1, Align: 4,
	},
	{
		ID: EncryptAESCBC, Name: "aes-cbc", Aliases: []string{"rijndael-cbc"}, Era: BothEras, // RFC 3602
		Key: KeyBits{128, 256, 64}, IVLen: 16, BlockSize: 16, Align: 16,
	},
	{
		// A stream needs no more than ESP's 4 octets, but FreeBSD up to 12
		// takes only whole blocks, so FreeBSD itself sends whole blocks
		// (sysctl net.inet.esp.ctr_compatibility).
		ID: EncryptAESCTR, Name: "aes-ctr", Era: BothEras, // RFC 3686
		Key: KeyBits{160, 288, 64}, SaltBits: 32, IVLen: 8, BlockSize: 1, Align: 16,
	},
	{
		ID: EncryptChaCha20Poly1305, Name: "chacha20-poly1305", Era: FreeBSD14, // RFC 7634
		Key: KeyBits{288, 288, 8}, SaltBits: 32, IVLen: 8, BlockSize: 1, Align: 4, AEAD: true, ICVLen: 16,
	},
	{
		ID: EncryptAESGCM16, Name: "aes-gcm-16", Era: BothEras, // RFC 4106
		Key: KeyBits{160, 288, 64}, SaltBits: 32, IVLen: 8, BlockSize: 1, Align: 4, AEAD: true, ICVLen: 16,
	},
	{
		ID: EncryptCamellia, Name: "camellia-cbc", Era: FreeBSD11, // RFC 4312
		Key: KeyBits{128, 256, 64}, IVLen: 16, BlockSize: 16, Align: 16,
	},
	{
		ID: EncryptTwofish, Name: "twofish-cbc", Era: FreeBSD11,
		Key: KeyBits{128, 256, 64}, IVLen: 16, BlockSize: 16, Align: 16,
	},
}

var authentications = []*Authentication{
	{ID: AuthHMACMD5, Name: "hmac-md5", Era: FreeBSD11, Weak: weakMD5, Key: KeyBits{128, 128, 8}, ICVLen: 12}, // RFC 2403
	{ID: AuthHMACSHA1, Name: "hmac-sha1", Era: BothEras, Key: KeyBits{160, 160, 8}, ICVLen: 12},               // RFC 2404
	{ID: AuthHMACSHA256, Name: "hmac-sha2-256", Era: BothEras, Key: KeyBits{256, 256, 8}, ICVLen: 16},         // RFC 4868
	{ID: AuthHMACSHA384, Name: "hmac-sha2-384", Era: BothEras, Key: KeyBits{384, 384, 8}, ICVLen: 24},         // RFC 4868
	{ID: AuthHMACSHA512, Name: "hmac-sha2-512", Era: BothEras, Key: KeyBits{512, 512, 8}, ICVLen: 32},         // RFC 4868
	{ID: AuthHMACRIPEMD160, Name: "hmac-ripemd160", Era: FreeBSD11, Key: KeyBits{160, 160, 8}, ICVLen: 12},    // RFC 2857
	{ID: AuthAESXCBC, Name: "aes-xcbc-mac", Era: BothEras, Key: KeyBits{128, 128, 8}, ICVLen: 12},             // RFC 3566
	// The AEAD's own authentication has a number too. Its key is the AEAD's,
	// so FreeBSD takes a key here and makes no use of it.
	{ID: AuthChaCha20Poly1305, Name: "chacha20-poly1305", Era: FreeBSD14, Key: KeyBits{128, 128, 8}, ICVLen: 16},
	{ID: AuthKeyedMD5, Name: "keyed-md5", Era: FreeBSD11, Weak: weakKeyed, Key: KeyBits{128, 128, 8}, ICVLen: 12},   // RFC 1828
	{ID: AuthKeyedSHA1, Name: "keyed-sha1", Era: FreeBSD11, Weak: weakKeyed, Key: KeyBits{160, 160, 8}, ICVLen: 12}, // RFC 1852
	{ID: AuthNull, Name: "null", Era: BothEras, Key: KeyBits{0, 2048, 8}},
	{ID: AuthTCPMD5, Name: "tcp-md5", Era: BothEras, Key: KeyBits{8, 640, 8}}, // RFC 2385
}

var compressions = []*Compression{
	{ID: CompressOUI, Name: "oui", Era: BothEras},
	{ID: CompressDeflate, Name: "deflate", Era: BothEras}, // RFC 2394
	{ID: CompressLZS, Name: "lzs", Era: BothEras},         // RFC 2395
}
