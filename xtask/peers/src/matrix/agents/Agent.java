// A TLS peer on JSSE. Reads one command a line, answers one line; see agent.rs.

import java.io.*;
import java.net.*;
import java.nio.file.*;
import java.security.*;
import java.security.cert.*;
import java.security.cert.Certificate;
import java.security.spec.*;
import java.util.*;
import javax.net.ssl.*;

public final class Agent {
    /** A context remembers sessions. */
    private static final Map<String, SSLContext> SESSIONS = new HashMap<>();

    public static void main(String[] arguments) throws IOException {
        BufferedReader commands = new BufferedReader(new InputStreamReader(System.in));
        for (String line; (line = commands.readLine()) != null; ) {
            Map<String, String> options = new HashMap<>();
            for (String word : line.split(" ")) {
                int equals = word.indexOf('=');
                if (equals > 0) options.put(word.substring(0, equals), word.substring(equals + 1));
            }
            try {
                System.out.println(line.startsWith("listen ") ? listen(options) : connect(options));
            } catch (Exception error) {
                System.out.println("failed " + String.valueOf(error).replace('\n', ' '));
            }
        }
    }

    private static String listen(Map<String, String> options) throws Exception {
        SSLContext tls = context(options);
        ServerSocket listener = new ServerSocket();
        listener.bind(new InetSocketAddress("::", Integer.parseInt(options.get("port"))));
        Thread acceptor = new Thread(() -> {
            while (true) {
                try {
                    Socket tcp = listener.accept();
                    Thread answerer = new Thread(() -> answer(tls, tcp, options));
                    answerer.setDaemon(true);
                    answerer.start();
                } catch (IOException error) {
                    return;
                }
            }
        });
        acceptor.setDaemon(true);
        acceptor.start();
        return "listening";
    }

    private static void answer(SSLContext tls, Socket tcp, Map<String, String> options) {
        try (SSLSocket stream = (SSLSocket) tls.getSocketFactory().createSocket(tcp, null, true)) {
            stream.setUseClientMode(false);
            stream.setNeedClientAuth(options.containsKey("authority"));
            restrict(stream, options);
            if (stream.getInputStream().read(new byte[4096]) > 0) {
                stream.getOutputStream().write("HTTP/1.0 200 OK\r\n\r\nhello\n".getBytes());
            }
        } catch (IOException error) {
            // What a peer does wrong is the subject of the tests.
        }
    }

    private static String connect(Map<String, String> options) throws Exception {
        try (Socket tcp = new Socket(options.get("address"), Integer.parseInt(options.get("port")))) {
            tcp.setSoTimeout(5000);
            SSLContext tls = SESSIONS.get(options.get("session"));
            if (tls == null) tls = context(options);
            if (options.containsKey("session")) SESSIONS.put(options.get("session"), tls);
            SSLSocket stream =
                (SSLSocket) tls.getSocketFactory().createSocket(tcp, options.get("address"), 0, true);
            restrict(stream, options);
            SSLParameters parameters = stream.getSSLParameters();
            String name = options.get("name");
            parameters.setServerNames(name == null ? List.of() : List.of(new SNIHostName(name)));
            stream.setSSLParameters(parameters);
            stream.getOutputStream().write("GET / HTTP/1.0\r\n\r\n".getBytes());
            while (stream.getInputStream().read(new byte[4096]) > 0) {}
            stream.close();
        }
        return "done";
    }

    private static void restrict(SSLSocket stream, Map<String, String> options) {
        SSLParameters parameters = stream.getSSLParameters();
        parameters.setProtocols(
            Arrays.stream(options.get("versions").split(",")).map(v -> "TLSv" + v).toArray(String[]::new));
        if (options.containsKey("alpn")) parameters.setApplicationProtocols(options.get("alpn").split(","));
        if (options.containsKey("suites")) parameters.setCipherSuites(options.get("suites").split(","));
        stream.setSSLParameters(parameters);
    }

    private static SSLContext context(Map<String, String> options) throws Exception {
        KeyManager[] keys = null;
        if (options.containsKey("certificate")) {
            KeyStore store = emptyStore();
            String pem = Files.readString(Path.of(options.get("key")));
            byte[] key = Base64.getMimeDecoder().decode(pem.replaceAll("-----[A-Z ]+-----", ""));
            PrivateKey secret = KeyFactory.getInstance("EC").generatePrivate(new PKCS8EncodedKeySpec(key));
            store.setKeyEntry("own", secret, new char[0], certificates(options.get("certificate")));
            KeyManagerFactory factory = KeyManagerFactory.getInstance("NewSunX509");
            factory.init(new KeyStoreBuilderParameters(
                KeyStore.Builder.newInstance(store, new KeyStore.PasswordProtection(new char[0]))));
            keys = factory.getKeyManagers();
        }
        TrustManager[] trust = {new TrustEverybody()};
        if (options.containsKey("authority")) {
            KeyStore store = emptyStore();
            store.setCertificateEntry("authority", certificates(options.get("authority"))[0]);
            TrustManagerFactory factory = TrustManagerFactory.getInstance("PKIX");
            factory.init(store);
            String name = options.get("name");
            trust = name == null
                ? factory.getTrustManagers()
                : new TrustManager[] {new NameChecker((X509ExtendedTrustManager) factory.getTrustManagers()[0], name)};
        }
        SSLContext tls = SSLContext.getInstance("TLS");
        tls.init(keys, trust, null);
        return tls;
    }

    private static KeyStore emptyStore() throws Exception {
        KeyStore store = KeyStore.getInstance("PKCS12");
        store.load(null, null);
        return store;
    }

    private static Certificate[] certificates(String file) throws Exception {
        try (InputStream pem = Files.newInputStream(Path.of(file))) {
            return CertificateFactory.getInstance("X.509").generateCertificates(pem).toArray(new Certificate[0]);
        }
    }

    /** Connects to an address and still verifies a name, which SSLSocket can only do for the host it was made with. */
    private static final class NameChecker extends X509ExtendedTrustManager {
        private final X509ExtendedTrustManager inner;
        private final String name;

        NameChecker(X509ExtendedTrustManager inner, String name) {
            this.inner = inner;
            this.name = name;
        }

        @Override
        public void checkServerTrusted(X509Certificate[] chain, String kind, Socket socket) throws CertificateException {
            inner.checkServerTrusted(chain, kind);
            Collection<List<?>> names = chain[0].getSubjectAlternativeNames();
            if (names == null || names.stream().noneMatch(entry -> name.equals(entry.get(1)))) {
                throw new CertificateException("No subject alternative DNS name matching " + name + " found.");
            }
        }

        @Override
        public void checkServerTrusted(X509Certificate[] chain, String kind, SSLEngine e) throws CertificateException {
            inner.checkServerTrusted(chain, kind);
        }

        @Override
        public void checkServerTrusted(X509Certificate[] chain, String kind) throws CertificateException {
            inner.checkServerTrusted(chain, kind);
        }

        @Override
        public void checkClientTrusted(X509Certificate[] chain, String kind, Socket s) throws CertificateException {
            inner.checkClientTrusted(chain, kind);
        }

        @Override
        public void checkClientTrusted(X509Certificate[] chain, String kind, SSLEngine e) throws CertificateException {
            inner.checkClientTrusted(chain, kind);
        }

        @Override
        public void checkClientTrusted(X509Certificate[] chain, String kind) throws CertificateException {
            inner.checkClientTrusted(chain, kind);
        }

        @Override
        public X509Certificate[] getAcceptedIssuers() {
            return inner.getAcceptedIssuers();
        }
    }

    private static final class TrustEverybody extends X509ExtendedTrustManager {
        @Override public void checkServerTrusted(X509Certificate[] chain, String kind, Socket socket) {}
        @Override public void checkServerTrusted(X509Certificate[] chain, String kind, SSLEngine engine) {}
        @Override public void checkServerTrusted(X509Certificate[] chain, String kind) {}
        @Override public void checkClientTrusted(X509Certificate[] chain, String kind, Socket socket) {}
        @Override public void checkClientTrusted(X509Certificate[] chain, String kind, SSLEngine engine) {}
        @Override public void checkClientTrusted(X509Certificate[] chain, String kind) {}
        @Override public X509Certificate[] getAcceptedIssuers() { return new X509Certificate[0]; }
    }
}
