//! The numbers of the TLS registries as newtypes, with their IANA names.
//!
//! A number that nobody has registered is shown as such (`0x1a2b`), never lost. Cipher suite names and
//! parameters come from tls-parser's copy of the IANA table; what it lacks is added here.

use std::borrow::Cow;
use std::fmt;
use std::sync::LazyLock;

use tls_parser::{CIPHERS, TlsCipherAu, TlsCipherEncMode, TlsCipherKx, TlsCipherMac, TlsCipherSuite, TlsPRF};

/// Declares a 16-bit or 8-bit code point, its constants and their registered names.
macro_rules! code_point {
    ($(#[$doc:meta])* $name:ident(u16) { $($constant:ident = $value:literal => $text:literal,)* }) => {
        code_point!(@ $(#[$doc])* $name(u16) { $($constant = $value => $text,)* });

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.name() {
                    Some(name) => f.pad(name),
                    None => write!(f, "{:#06x}", self.0),
                }
            }
        }

        impl From<$name> for Cow<'static, str> {
            /// As it is displayed.
            fn from(value: $name) -> Self {
                value.name().map_or_else(|| value.to_string().into(), Cow::Borrowed)
            }
        }

        impl $name {
            /// Is this one of the values that RFC 8701 reserves for GREASE?
            pub const fn is_grease(self) -> bool {
                is_grease(self.0)
            }
        }
    };
    ($(#[$doc:meta])* $name:ident(u8) { $($constant:ident = $value:literal => $text:literal,)* }) => {
        code_point!(@ $(#[$doc])* $name(u8) { $($constant = $value => $text,)* });

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.name() {
                    Some(name) => f.pad(name),
                    None => write!(f, "{}", self.0),
                }
            }
        }
    };
    (@ $(#[$doc:meta])* $name:ident($int:ty) { $($constant:ident = $value:literal => $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $int);

        impl $name {
            $(#[doc = concat!("`", $text, "`")] pub const $constant: Self = Self($value);)*

            fn registered_name(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some($text),)*
                    _ => None,
                }
            }
        }
    };
}

/// Is `value` reserved for GREASE: both bytes equal, low nibbles 0xA (RFC 8701 §2)?
pub const fn is_grease(value: u16) -> bool {
    let [high, low] = value.to_be_bytes();
    high == low && low & 0x0f == 0x0a
}
code_point! {
    /// A protocol version as it stands in records and hellos (RFC 8446 §4.2.1; 0x0002 is SSL 2.0).
    ProtocolVersion(u16) {
        SSL2 = 0x0002 => "ssl2",
        SSL3 = 0x0300 => "ssl3",
        TLS1_0 = 0x0301 => "1.0",
        TLS1_1 = 0x0302 => "1.1",
        TLS1_2 = 0x0303 => "1.2",
        TLS1_3 = 0x0304 => "1.3",
    }
}

code_point! {
    /// A cipher suite (IANA TLS Cipher Suites). tls-parser has the names; these are the ones it lacks (RFC 9189,
    /// RFC 9367).
    CipherSuite(u16) {
        GOSTR341112_256_WITH_KUZNYECHIK_CTR_OMAC = 0xc100 => "TLS_GOSTR341112_256_WITH_KUZNYECHIK_CTR_OMAC",
        GOSTR341112_256_WITH_MAGMA_CTR_OMAC = 0xc101 => "TLS_GOSTR341112_256_WITH_MAGMA_CTR_OMAC",
        GOSTR341112_256_WITH_28147_CNT_IMIT = 0xc102 => "TLS_GOSTR341112_256_WITH_28147_CNT_IMIT",
        GOSTR341112_256_WITH_KUZNYECHIK_MGM_L = 0xc103 => "TLS_GOSTR341112_256_WITH_KUZNYECHIK_MGM_L",
        GOSTR341112_256_WITH_MAGMA_MGM_L = 0xc104 => "TLS_GOSTR341112_256_WITH_MAGMA_MGM_L",
        GOSTR341112_256_WITH_KUZNYECHIK_MGM_S = 0xc105 => "TLS_GOSTR341112_256_WITH_KUZNYECHIK_MGM_S",
        GOSTR341112_256_WITH_MAGMA_MGM_S = 0xc106 => "TLS_GOSTR341112_256_WITH_MAGMA_MGM_S",
        FALLBACK_SCSV = 0x5600 => "TLS_FALLBACK_SCSV",
        EMPTY_RENEGOTIATION_INFO_SCSV = 0x00ff => "TLS_EMPTY_RENEGOTIATION_INFO_SCSV",
    }
}

code_point! {
    /// A key exchange group (IANA TLS Supported Groups; ML-KEM hybrids from draft-ietf-tls-ecdhe-mlkem).
    NamedGroup(u16) {
        SECT163K1 = 0x0001 => "sect163k1",
        SECT163R1 = 0x0002 => "sect163r1",
        SECT163R2 = 0x0003 => "sect163r2",
        SECT193R1 = 0x0004 => "sect193r1",
        SECT193R2 = 0x0005 => "sect193r2",
        SECT233K1 = 0x0006 => "sect233k1",
        SECT233R1 = 0x0007 => "sect233r1",
        SECT239K1 = 0x0008 => "sect239k1",
        SECT283K1 = 0x0009 => "sect283k1",
        SECT283R1 = 0x000a => "sect283r1",
        SECT409K1 = 0x000b => "sect409k1",
        SECT409R1 = 0x000c => "sect409r1",
        SECT571K1 = 0x000d => "sect571k1",
        SECT571R1 = 0x000e => "sect571r1",
        SECP160K1 = 0x000f => "secp160k1",
        SECP160R1 = 0x0010 => "secp160r1",
        SECP160R2 = 0x0011 => "secp160r2",
        SECP192K1 = 0x0012 => "secp192k1",
        SECP192R1 = 0x0013 => "secp192r1",
        SECP224K1 = 0x0014 => "secp224k1",
        SECP224R1 = 0x0015 => "secp224r1",
        SECP256K1 = 0x0016 => "secp256k1",
        SECP256R1 = 0x0017 => "secp256r1",
        SECP384R1 = 0x0018 => "secp384r1",
        SECP521R1 = 0x0019 => "secp521r1",
        BRAINPOOLP256R1 = 0x001a => "brainpoolP256r1",
        BRAINPOOLP384R1 = 0x001b => "brainpoolP384r1",
        BRAINPOOLP512R1 = 0x001c => "brainpoolP512r1",
        X25519 = 0x001d => "x25519",
        X448 = 0x001e => "x448",
        BRAINPOOLP256R1TLS13 = 0x001f => "brainpoolP256r1tls13",
        BRAINPOOLP384R1TLS13 = 0x0020 => "brainpoolP384r1tls13",
        BRAINPOOLP512R1TLS13 = 0x0021 => "brainpoolP512r1tls13",
        GC256A = 0x0022 => "GC256A",
        GC256B = 0x0023 => "GC256B",
        GC256C = 0x0024 => "GC256C",
        GC256D = 0x0025 => "GC256D",
        GC512A = 0x0026 => "GC512A",
        GC512B = 0x0027 => "GC512B",
        GC512C = 0x0028 => "GC512C",
        CURVESM2 = 0x0029 => "curveSM2",
        FFDHE2048 = 0x0100 => "ffdhe2048",
        FFDHE3072 = 0x0101 => "ffdhe3072",
        FFDHE4096 = 0x0102 => "ffdhe4096",
        FFDHE6144 = 0x0103 => "ffdhe6144",
        FFDHE8192 = 0x0104 => "ffdhe8192",
        MLKEM512 = 0x0200 => "MLKEM512",
        MLKEM768 = 0x0201 => "MLKEM768",
        MLKEM1024 = 0x0202 => "MLKEM1024",
        SECP256R1MLKEM768 = 0x11eb => "SecP256r1MLKEM768",
        X25519MLKEM768 = 0x11ec => "X25519MLKEM768",
        SECP384R1MLKEM1024 = 0x11ed => "SecP384r1MLKEM1024",
        CURVESM2MLKEM768 = 0x11ee => "curveSM2MLKEM768",
        X25519KYBER768DRAFT00 = 0x6399 => "X25519Kyber768Draft00",
        SECP256R1KYBER768DRAFT00 = 0x639a => "SecP256r1Kyber768Draft00",
        ARBITRARY_EXPLICIT_PRIME_CURVES = 0xff01 => "arbitrary_explicit_prime_curves",
        ARBITRARY_EXPLICIT_CHAR2_CURVES = 0xff02 => "arbitrary_explicit_char2_curves",
    }
}

code_point! {
    /// A signature scheme (IANA TLS `SignatureScheme`), or the hash and signature pair that TLS 1.2 has
    /// in its place (RFC 5246 §7.4.1.4.1), named in the same style.
    SignatureScheme(u16) {
        RSA_PKCS1_MD5 = 0x0101 => "rsa_pkcs1_md5",
        DSA_MD5 = 0x0102 => "dsa_md5",
        ECDSA_MD5 = 0x0103 => "ecdsa_md5",
        RSA_PKCS1_SHA1 = 0x0201 => "rsa_pkcs1_sha1",
        DSA_SHA1 = 0x0202 => "dsa_sha1",
        ECDSA_SHA1 = 0x0203 => "ecdsa_sha1",
        RSA_PKCS1_SHA224 = 0x0301 => "rsa_pkcs1_sha224",
        DSA_SHA224 = 0x0302 => "dsa_sha224",
        ECDSA_SHA224 = 0x0303 => "ecdsa_sha224",
        RSA_PKCS1_SHA256 = 0x0401 => "rsa_pkcs1_sha256",
        DSA_SHA256 = 0x0402 => "dsa_sha256",
        ECDSA_SECP256R1_SHA256 = 0x0403 => "ecdsa_secp256r1_sha256",
        RSA_PKCS1_SHA256_LEGACY = 0x0420 => "rsa_pkcs1_sha256_legacy",
        RSA_PKCS1_SHA384 = 0x0501 => "rsa_pkcs1_sha384",
        DSA_SHA384 = 0x0502 => "dsa_sha384",
        ECDSA_SECP384R1_SHA384 = 0x0503 => "ecdsa_secp384r1_sha384",
        RSA_PKCS1_SHA384_LEGACY = 0x0520 => "rsa_pkcs1_sha384_legacy",
        RSA_PKCS1_SHA512 = 0x0601 => "rsa_pkcs1_sha512",
        DSA_SHA512 = 0x0602 => "dsa_sha512",
        ECDSA_SECP521R1_SHA512 = 0x0603 => "ecdsa_secp521r1_sha512",
        RSA_PKCS1_SHA512_LEGACY = 0x0620 => "rsa_pkcs1_sha512_legacy",
        ECCSI_SHA256 = 0x0704 => "eccsi_sha256",
        ISO_IBS1 = 0x0705 => "iso_ibs1",
        ISO_IBS2 = 0x0706 => "iso_ibs2",
        ISO_CHINESE_IBS = 0x0707 => "iso_chinese_ibs",
        SM2SIG_SM3 = 0x0708 => "sm2sig_sm3",
        GOSTR34102012_256A = 0x0709 => "gostr34102012_256a",
        GOSTR34102012_256B = 0x070a => "gostr34102012_256b",
        GOSTR34102012_256C = 0x070b => "gostr34102012_256c",
        GOSTR34102012_256D = 0x070c => "gostr34102012_256d",
        GOSTR34102012_512A = 0x070d => "gostr34102012_512a",
        GOSTR34102012_512B = 0x070e => "gostr34102012_512b",
        GOSTR34102012_512C = 0x070f => "gostr34102012_512c",
        RSA_PSS_RSAE_SHA256 = 0x0804 => "rsa_pss_rsae_sha256",
        RSA_PSS_RSAE_SHA384 = 0x0805 => "rsa_pss_rsae_sha384",
        RSA_PSS_RSAE_SHA512 = 0x0806 => "rsa_pss_rsae_sha512",
        ED25519 = 0x0807 => "ed25519",
        ED448 = 0x0808 => "ed448",
        RSA_PSS_PSS_SHA256 = 0x0809 => "rsa_pss_pss_sha256",
        RSA_PSS_PSS_SHA384 = 0x080a => "rsa_pss_pss_sha384",
        RSA_PSS_PSS_SHA512 = 0x080b => "rsa_pss_pss_sha512",
        ECDSA_BRAINPOOLP256R1TLS13_SHA256 = 0x081a => "ecdsa_brainpoolP256r1tls13_sha256",
        ECDSA_BRAINPOOLP384R1TLS13_SHA384 = 0x081b => "ecdsa_brainpoolP384r1tls13_sha384",
        ECDSA_BRAINPOOLP512R1TLS13_SHA512 = 0x081c => "ecdsa_brainpoolP512r1tls13_sha512",
        MLDSA44 = 0x0904 => "mldsa44",
        MLDSA65 = 0x0905 => "mldsa65",
        MLDSA87 = 0x0906 => "mldsa87",
        SLHDSA_SHA2_128S = 0x0911 => "slhdsa_sha2_128s",
        SLHDSA_SHA2_128F = 0x0912 => "slhdsa_sha2_128f",
        SLHDSA_SHA2_192S = 0x0913 => "slhdsa_sha2_192s",
        SLHDSA_SHA2_192F = 0x0914 => "slhdsa_sha2_192f",
        SLHDSA_SHA2_256S = 0x0915 => "slhdsa_sha2_256s",
        SLHDSA_SHA2_256F = 0x0916 => "slhdsa_sha2_256f",
        SLHDSA_SHAKE_128S = 0x0917 => "slhdsa_shake_128s",
        SLHDSA_SHAKE_128F = 0x0918 => "slhdsa_shake_128f",
        SLHDSA_SHAKE_192S = 0x0919 => "slhdsa_shake_192s",
        SLHDSA_SHAKE_192F = 0x091a => "slhdsa_shake_192f",
        SLHDSA_SHAKE_256S = 0x091b => "slhdsa_shake_256s",
        SLHDSA_SHAKE_256F = 0x091c => "slhdsa_shake_256f",
    }
}

code_point! {
    /// A hello extension (IANA TLS `ExtensionType` Values, and the few unregistered ones that browsers send).
    ExtensionType(u16) {
        SERVER_NAME = 0 => "server_name",
        MAX_FRAGMENT_LENGTH = 1 => "max_fragment_length",
        CLIENT_CERTIFICATE_URL = 2 => "client_certificate_url",
        TRUSTED_CA_KEYS = 3 => "trusted_ca_keys",
        TRUNCATED_HMAC = 4 => "truncated_hmac",
        STATUS_REQUEST = 5 => "status_request",
        USER_MAPPING = 6 => "user_mapping",
        CLIENT_AUTHZ = 7 => "client_authz",
        SERVER_AUTHZ = 8 => "server_authz",
        CERT_TYPE = 9 => "cert_type",
        SUPPORTED_GROUPS = 10 => "supported_groups",
        EC_POINT_FORMATS = 11 => "ec_point_formats",
        SRP = 12 => "srp",
        SIGNATURE_ALGORITHMS = 13 => "signature_algorithms",
        USE_SRTP = 14 => "use_srtp",
        HEARTBEAT = 15 => "heartbeat",
        APPLICATION_LAYER_PROTOCOL_NEGOTIATION = 16 => "application_layer_protocol_negotiation",
        STATUS_REQUEST_V2 = 17 => "status_request_v2",
        SIGNED_CERTIFICATE_TIMESTAMP = 18 => "signed_certificate_timestamp",
        CLIENT_CERTIFICATE_TYPE = 19 => "client_certificate_type",
        SERVER_CERTIFICATE_TYPE = 20 => "server_certificate_type",
        PADDING = 21 => "padding",
        ENCRYPT_THEN_MAC = 22 => "encrypt_then_mac",
        EXTENDED_MASTER_SECRET = 23 => "extended_master_secret",
        TOKEN_BINDING = 24 => "token_binding",
        CACHED_INFO = 25 => "cached_info",
        TLS_LTS = 26 => "tls_lts",
        COMPRESS_CERTIFICATE = 27 => "compress_certificate",
        RECORD_SIZE_LIMIT = 28 => "record_size_limit",
        PWD_PROTECT = 29 => "pwd_protect",
        PWD_CLEAR = 30 => "pwd_clear",
        PASSWORD_SALT = 31 => "password_salt",
        TICKET_PINNING = 32 => "ticket_pinning",
        TLS_CERT_WITH_EXTERN_PSK = 33 => "tls_cert_with_extern_psk",
        DELEGATED_CREDENTIAL = 34 => "delegated_credential",
        SESSION_TICKET = 35 => "session_ticket",
        TLMSP = 36 => "TLMSP",
        TLMSP_PROXYING = 37 => "TLMSP_proxying",
        TLMSP_DELEGATE = 38 => "TLMSP_delegate",
        SUPPORTED_EKT_CIPHERS = 39 => "supported_ekt_ciphers",
        PRE_SHARED_KEY = 41 => "pre_shared_key",
        EARLY_DATA = 42 => "early_data",
        SUPPORTED_VERSIONS = 43 => "supported_versions",
        COOKIE = 44 => "cookie",
        PSK_KEY_EXCHANGE_MODES = 45 => "psk_key_exchange_modes",
        CERTIFICATE_AUTHORITIES = 47 => "certificate_authorities",
        OID_FILTERS = 48 => "oid_filters",
        POST_HANDSHAKE_AUTH = 49 => "post_handshake_auth",
        SIGNATURE_ALGORITHMS_CERT = 50 => "signature_algorithms_cert",
        KEY_SHARE = 51 => "key_share",
        TRANSPARENCY_INFO = 52 => "transparency_info",
        CONNECTION_ID = 54 => "connection_id",
        EXTERNAL_ID_HASH = 55 => "external_id_hash",
        EXTERNAL_SESSION_ID = 56 => "external_session_id",
        QUIC_TRANSPORT_PARAMETERS = 57 => "quic_transport_parameters",
        TICKET_REQUEST = 58 => "ticket_request",
        DNSSEC_CHAIN = 59 => "dnssec_chain",
        SEQUENCE_NUMBER_ENCRYPTION_ALGORITHMS = 60 => "sequence_number_encryption_algorithms",
        RRC = 61 => "rrc",
        TLS_FLAGS = 62 => "tls_flags",
        NEXT_PROTOCOL_NEGOTIATION = 0x3374 => "next_protocol_negotiation",
        APPLICATION_SETTINGS = 0x4469 => "application_settings",
        APPLICATION_SETTINGS_NEW = 0x44cd => "application_settings_new",
        CHANNEL_ID = 0x7550 => "channel_id",
        ECH_OUTER_EXTENSIONS = 0xfd00 => "ech_outer_extensions",
        ENCRYPTED_CLIENT_HELLO = 0xfe0d => "encrypted_client_hello",
        RENEGOTIATION_INFO = 0xff01 => "renegotiation_info",
        ENCRYPTED_SERVER_NAME = 0xffce => "encrypted_server_name",
    }
}

code_point! {
    /// An alert's description (IANA TLS Alerts; the SSL 3.0 to TLS 1.1 ones included).
    AlertDescription(u8) {
        CLOSE_NOTIFY = 0 => "close_notify",
        UNEXPECTED_MESSAGE = 10 => "unexpected_message",
        BAD_RECORD_MAC = 20 => "bad_record_mac",
        DECRYPTION_FAILED = 21 => "decryption_failed",
        RECORD_OVERFLOW = 22 => "record_overflow",
        DECOMPRESSION_FAILURE = 30 => "decompression_failure",
        HANDSHAKE_FAILURE = 40 => "handshake_failure",
        NO_CERTIFICATE = 41 => "no_certificate",
        BAD_CERTIFICATE = 42 => "bad_certificate",
        UNSUPPORTED_CERTIFICATE = 43 => "unsupported_certificate",
        CERTIFICATE_REVOKED = 44 => "certificate_revoked",
        CERTIFICATE_EXPIRED = 45 => "certificate_expired",
        CERTIFICATE_UNKNOWN = 46 => "certificate_unknown",
        ILLEGAL_PARAMETER = 47 => "illegal_parameter",
        UNKNOWN_CA = 48 => "unknown_ca",
        ACCESS_DENIED = 49 => "access_denied",
        DECODE_ERROR = 50 => "decode_error",
        DECRYPT_ERROR = 51 => "decrypt_error",
        TOO_MANY_CIDS_REQUESTED = 52 => "too_many_cids_requested",
        EXPORT_RESTRICTION = 60 => "export_restriction",
        PROTOCOL_VERSION = 70 => "protocol_version",
        INSUFFICIENT_SECURITY = 71 => "insufficient_security",
        INTERNAL_ERROR = 80 => "internal_error",
        INAPPROPRIATE_FALLBACK = 86 => "inappropriate_fallback",
        USER_CANCELED = 90 => "user_canceled",
        NO_RENEGOTIATION = 100 => "no_renegotiation",
        MISSING_EXTENSION = 109 => "missing_extension",
        UNSUPPORTED_EXTENSION = 110 => "unsupported_extension",
        CERTIFICATE_UNOBTAINABLE = 111 => "certificate_unobtainable",
        UNRECOGNIZED_NAME = 112 => "unrecognized_name",
        BAD_CERTIFICATE_STATUS_RESPONSE = 113 => "bad_certificate_status_response",
        BAD_CERTIFICATE_HASH_VALUE = 114 => "bad_certificate_hash_value",
        UNKNOWN_PSK_IDENTITY = 115 => "unknown_psk_identity",
        CERTIFICATE_REQUIRED = 116 => "certificate_required",
        GENERAL_ERROR = 117 => "general_error",
        NO_APPLICATION_PROTOCOL = 120 => "no_application_protocol",
        ECH_REQUIRED = 121 => "ech_required",
    }
}

code_point! {
    /// An alert's level (RFC 8446 §6).
    AlertLevel(u8) {
        WARNING = 1 => "warning",
        FATAL = 2 => "fatal",
    }
}

code_point! {
    /// A handshake message's type (IANA TLS `HandshakeType`).
    HandshakeType(u8) {
        HELLO_REQUEST = 0 => "hello_request",
        CLIENT_HELLO = 1 => "client_hello",
        SERVER_HELLO = 2 => "server_hello",
        HELLO_VERIFY_REQUEST = 3 => "hello_verify_request",
        NEW_SESSION_TICKET = 4 => "new_session_ticket",
        END_OF_EARLY_DATA = 5 => "end_of_early_data",
        HELLO_RETRY_REQUEST = 6 => "hello_retry_request",
        ENCRYPTED_EXTENSIONS = 8 => "encrypted_extensions",
        REQUEST_CONNECTION_ID = 9 => "request_connection_id",
        NEW_CONNECTION_ID = 10 => "new_connection_id",
        CERTIFICATE = 11 => "certificate",
        SERVER_KEY_EXCHANGE = 12 => "server_key_exchange",
        CERTIFICATE_REQUEST = 13 => "certificate_request",
        SERVER_HELLO_DONE = 14 => "server_hello_done",
        CERTIFICATE_VERIFY = 15 => "certificate_verify",
        CLIENT_KEY_EXCHANGE = 16 => "client_key_exchange",
        CLIENT_CERTIFICATE_REQUEST = 17 => "client_certificate_request",
        FINISHED = 20 => "finished",
        CERTIFICATE_URL = 21 => "certificate_url",
        CERTIFICATE_STATUS = 22 => "certificate_status",
        SUPPLEMENTAL_DATA = 23 => "supplemental_data",
        KEY_UPDATE = 24 => "key_update",
        COMPRESSED_CERTIFICATE = 25 => "compressed_certificate",
        EKT_KEY = 26 => "ekt_key",
        NEXT_PROTOCOL = 67 => "next_protocol",
        MESSAGE_HASH = 254 => "message_hash",
    }
}

code_point! {
    /// A record's content type (IANA TLS `ContentType`).
    ContentType(u8) {
        CHANGE_CIPHER_SPEC = 20 => "change_cipher_spec",
        ALERT = 21 => "alert",
        HANDSHAKE = 22 => "handshake",
        APPLICATION_DATA = 23 => "application_data",
        HEARTBEAT = 24 => "heartbeat",
        TLS12_CID = 25 => "tls12_cid",
        ACK = 26 => "ACK",
    }
}

/// `name()` where the table above has every name.
macro_rules! named_by_table {
    ($($name:ident),*) => {
        $(impl $name {
            /// The registered name.
            pub fn name(self) -> Option<&'static str> {
                self.registered_name()
            }
        })*
    };
}

named_by_table!(
    ProtocolVersion,
    NamedGroup,
    SignatureScheme,
    ExtensionType,
    AlertDescription,
    AlertLevel,
    HandshakeType,
    ContentType
);

impl ExtensionType {
    /// `key_share` before draft 23 of TLS 1.3 moved it.
    pub const KEY_SHARE_BEFORE_DRAFT_23: Self = Self(40);
}

impl ProtocolVersion {
    /// TLS 1.3, or one of the drafts on the way to it (0x7f00 + draft number).
    pub const fn is_tls13(self) -> bool {
        self.0 == Self::TLS1_3.0 || self.0 >> 8 == 0x7f
    }
}

/// How the premaster secret is agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyExchange {
    /// The client encrypts it to the certificate's RSA key.
    Rsa,
    /// Static Diffie-Hellman with a key in the certificate.
    Dh,
    /// Ephemeral Diffie-Hellman over a finite field.
    Dhe,
    /// Static elliptic curve Diffie-Hellman with a key in the certificate.
    Ecdh,
    /// Ephemeral elliptic curve Diffie-Hellman.
    Ecdhe,
    /// A pre-shared key alone.
    Psk,
    /// Kerberos, SRP or ECCPWD.
    Other,
    /// TLS 1.3: not the suite's business, `key_share` and `pre_shared_key` decide.
    Any,
}

/// What proves who the server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Authentication {
    /// A certificate with an RSA key (for static ECDH: signed with RSA).
    Rsa,
    /// A certificate with an elliptic curve key.
    Ecdsa,
    /// A certificate with a DSA key.
    Dss,
    /// Nothing.
    Anon,
    /// A pre-shared key.
    Psk,
    /// Kerberos, SRP without a certificate, or ECCPWD.
    Other,
    /// TLS 1.3: not the suite's business, `signature_algorithms` decides.
    Any,
}

impl CipherSuite {
    /// The registered name.
    pub fn name(self) -> Option<&'static str> {
        self.entry().map(|suite| suite.name).or_else(|| self.registered_name())
    }

    /// Is it for TLS 1.3 only?
    pub fn is_tls13(self) -> bool {
        self.entry().is_some_and(|suite| suite.kx == TlsCipherKx::Tls13)
            || (Self::GOSTR341112_256_WITH_KUZNYECHIK_MGM_L..=Self::GOSTR341112_256_WITH_MAGMA_MGM_S)
                .contains(&self)
    }

    /// Is it a signal to the server (RFC 5746 §3.3, RFC 7507) rather than a suite?
    pub fn is_signaling(self) -> bool {
        self == Self::EMPTY_RENEGOTIATION_INFO_SCSV || self == Self::FALLBACK_SCSV
    }

    /// How the premaster secret is agreed on; `None` if the suite is unknown or not a suite.
    pub fn key_exchange(self) -> Option<KeyExchange> {
        if self.is_tls13() {
            return Some(KeyExchange::Any);
        }
        let suite = self.entry()?;
        let anonymous = suite.au == TlsCipherAu::Null;
        Some(match suite.kx {
            TlsCipherKx::Null => return None,
            // tls-parser reads TLS_PSK_DHE_* the wrong way round.
            TlsCipherKx::Psk if suite.au == TlsCipherAu::Dhe => KeyExchange::Dhe,
            TlsCipherKx::Psk => KeyExchange::Psk,
            TlsCipherKx::Rsa => KeyExchange::Rsa,
            // DH_anon and ECDH_anon are ephemeral (RFC 5246 §7.4.3, RFC 8422 §2.4).
            TlsCipherKx::Dh if anonymous => KeyExchange::Dhe,
            TlsCipherKx::Dh => KeyExchange::Dh,
            TlsCipherKx::Dhe => KeyExchange::Dhe,
            TlsCipherKx::Ecdh if anonymous => KeyExchange::Ecdhe,
            TlsCipherKx::Ecdh => KeyExchange::Ecdh,
            TlsCipherKx::Ecdhe | TlsCipherKx::Aecdh => KeyExchange::Ecdhe,
            TlsCipherKx::Krb5 | TlsCipherKx::Srp | TlsCipherKx::Eccpwd => KeyExchange::Other,
            TlsCipherKx::Tls13 => KeyExchange::Any,
        })
    }

    /// What proves who the server is; `None` if the suite is unknown or not a suite.
    pub fn authentication(self) -> Option<Authentication> {
        if self.is_tls13() {
            return Some(Authentication::Any);
        }
        let suite = self.entry()?;
        Some(match suite.au {
            TlsCipherAu::Null if suite.kx == TlsCipherKx::Null => return None,
            TlsCipherAu::Null => Authentication::Anon,
            TlsCipherAu::Psk | TlsCipherAu::Dhe => Authentication::Psk,
            TlsCipherAu::Rsa | TlsCipherAu::Srp_Rsa => Authentication::Rsa,
            TlsCipherAu::Dss | TlsCipherAu::Srp_Dss => Authentication::Dss,
            TlsCipherAu::Ecdsa => Authentication::Ecdsa,
            TlsCipherAu::Krb5 | TlsCipherAu::Srp | TlsCipherAu::Eccpwd => Authentication::Other,
            TlsCipherAu::Tls13 => Authentication::Any,
        })
    }

    /// Bytes of a TLS 1.3 Finished's `verify_data` (RFC 8446 §4.4.4): the hash's length; `None` for other
    /// suites.
    pub fn hash_len(self) -> Option<u16> {
        if !self.is_tls13() {
            return None;
        }
        Some(match self.entry().map(|suite| suite.prf) {
            Some(TlsPRF::Sha384) => 48,
            Some(TlsPRF::Sha512) => 64,
            // SHA-256, SM3 and Streebog-256.
            _ => 32,
        })
    }

    /// Bytes by which an AEAD makes a record longer; `None` if the suite has a separate MAC or is unknown.
    pub fn tag_len(self) -> Option<u16> {
        let suite = self.entry()?;
        if self == Self(0xc0b4) || self == Self(0xc0b5) {
            // Integrity only: a whole HMAC (RFC 9150 §5).
            return self.hash_len();
        }
        let aead = suite.mac == TlsCipherMac::Aead || self.is_tls13();
        // No other mode has suites with a short tag (RFC 6655 §4, RFC 8446 §B.4).
        let is_short = suite.enc_mode == TlsCipherEncMode::Ccm && suite.name.contains("_CCM_8");
        aead.then_some(if is_short { 8 } else { 16 })
    }

    fn entry(self) -> Option<&'static TlsCipherSuite> {
        // Every handshake asks several times, and tls-parser hashes each time.
        static BY_ID: LazyLock<Box<[&'static TlsCipherSuite]>> = LazyLock::new(|| {
            let mut suites: Vec<_> = CIPHERS.values().collect();
            suites.sort_unstable_by_key(|suite| suite.id.0);
            suites.into()
        });
        let found = BY_ID.binary_search_by_key(&self.0, |suite| suite.id.0).ok()?;
        BY_ID.get(found).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registered_values_have_their_iana_name_and_others_their_number() {
        assert_eq!(CipherSuite(0xc02f).to_string(), "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256");
        assert_eq!(CipherSuite(0xc105).to_string(), "TLS_GOSTR341112_256_WITH_KUZNYECHIK_MGM_S");
        assert_eq!(CipherSuite::FALLBACK_SCSV.to_string(), "TLS_FALLBACK_SCSV");
        assert_eq!(CipherSuite(0x0a0b).to_string(), "0x0a0b");
        assert_eq!(NamedGroup(0x11ec).to_string(), "X25519MLKEM768");
        assert_eq!(NamedGroup(0x11eb).to_string(), "SecP256r1MLKEM768");
        assert_eq!(SignatureScheme(0x0905).to_string(), "mldsa65");
        assert_eq!(SignatureScheme(0x0202).to_string(), "dsa_sha1");
        assert_eq!(SignatureScheme(0x0403).to_string(), "ecdsa_secp256r1_sha256");
        assert_eq!(ExtensionType(0xfe0d).to_string(), "encrypted_client_hello");
        assert_eq!(ProtocolVersion(0x0304).to_string(), "1.3");
        assert_eq!(ProtocolVersion(0x7f1c).to_string(), "0x7f1c");
        assert_eq!(AlertDescription(117).to_string(), "general_error");
        assert_eq!(AlertDescription(121).to_string(), "ech_required");
        assert_eq!(AlertDescription(200).to_string(), "200");
        assert_eq!(format!("{:>6}", NamedGroup::X25519), "x25519");
        assert_eq!(format!("{:>8}|", ProtocolVersion::TLS1_3), "     1.3|");
    }

    #[test]
    fn suites_say_how_they_exchange_keys_and_authenticate() {
        use Authentication as A;
        use KeyExchange as K;
        for (suite, key_exchange, authentication) in [
            (0x1301, K::Any, A::Any),
            (0xc02f, K::Ecdhe, A::Rsa),
            (0xc02b, K::Ecdhe, A::Ecdsa),
            (0x009e, K::Dhe, A::Rsa),
            (0x0032, K::Dhe, A::Dss),
            (0x002f, K::Rsa, A::Rsa),
            (0xc004, K::Ecdh, A::Ecdsa),
            (0x0034, K::Dhe, A::Anon),
            (0xc018, K::Ecdhe, A::Anon),
            (0x008c, K::Psk, A::Psk),
            (0x00aa, K::Dhe, A::Psk),
            (0xc0aa, K::Dhe, A::Psk),
        ] {
            let suite = CipherSuite(suite);
            assert_eq!(suite.key_exchange(), Some(key_exchange), "{suite}");
            assert_eq!(suite.authentication(), Some(authentication), "{suite}");
        }
        for not_a_suite in
            [CipherSuite::EMPTY_RENEGOTIATION_INFO_SCSV, CipherSuite(0x1a1a), CipherSuite(0xffff)]
        {
            assert_eq!(not_a_suite.key_exchange(), None);
            assert_eq!(not_a_suite.authentication(), None);
        }
        assert!(CipherSuite::EMPTY_RENEGOTIATION_INFO_SCSV.is_signaling());
    }

    #[test]
    fn sizes_of_finished_and_of_tags_follow_the_suite() {
        for (suite, hash_len, tag_len) in [
            (0x1301, Some(32), Some(16)),
            (0x1302, Some(48), Some(16)),
            (0x1303, Some(32), Some(16)),
            (0x1304, Some(32), Some(16)),
            (0x1305, Some(32), Some(8)),
            (0x1306, Some(64), Some(16)),
            (0xc0b5, Some(48), Some(48)),
            (0xc030, None, Some(16)),
            (0xc0ae, None, Some(8)),
            (0xc014, None, None),
            (0x0a0a, None, None),
        ] {
            let suite = CipherSuite(suite);
            assert_eq!((suite.hash_len(), suite.tag_len()), (hash_len, tag_len), "{suite}");
        }
    }

    #[test]
    fn only_tls_1_3_and_its_drafts_are_tls_1_3() {
        let versions: Vec<u16> = [0x0002, 0x0303, 0x0304, 0x0305, 0x7f1c, 0x1a1a]
            .into_iter()
            .filter(|&v| ProtocolVersion(v).is_tls13())
            .collect();
        assert_eq!(versions, [0x0304, 0x7f1c]);
    }
}
