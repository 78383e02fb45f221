//! Which product a pod or a process is, so that a remedy can speak of that product's own settings.
//!
//! Labels tell best: they are what Services and configuration select pods by. Else it is the image, but only of the
//! container that listens: a pod with a proxy beside its own container is no gateway.

use crate::engine::facts::Role;
use crate::verdict::explain::Product;

/// A product that terminates TLS or opens it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Gateway {
    pub product: Product,
    /// The only end of a connection on which its settings count; `None`: either.
    pub role: Option<Role>,
}

/// By a label of a pod, as its makers document it.
const LABELS: &[(&str, Option<&str>, Gateway)] = &[
    // <https://cloud.google.com/apigee/docs/hybrid/latest/enable-non-sni>: the ingress is configured for clients, and
    // what it sends on goes to the runtime.
    ("app", Some("apigee-ingressgateway"), only(Product::ApigeeHybrid, Role::Server)),
    // <https://cloud.google.com/apigee/docs/hybrid/latest/what-is-hybrid>: the Message Processor calls the targets.
    ("app", Some("apigee-runtime"), only(Product::ApigeeHybrid, Role::Client)),
    // <https://istio.io/latest/docs/setup/additional-setup/gateway/>, and the charts' values.
    ("istio", Some("ingressgateway"), any(Product::Istio)),
    ("istio", Some("egressgateway"), any(Product::Istio)),
    ("istio", Some("eastwestgateway"), any(Product::Istio)),
    ("app", Some("istio-ingressgateway"), any(Product::Istio)),
    ("app", Some("istio-egressgateway"), any(Product::Istio)),
    // <https://gateway.envoyproxy.io/docs/tasks/operations/customize-envoyproxy/>
    ("gateway.envoyproxy.io/owning-gateway-name", None, any(Product::Envoy)),
    // <https://kubernetes.github.io/ingress-nginx/deploy/>
    ("app.kubernetes.io/name", Some("ingress-nginx"), any(Product::Nginx)),
    // <https://docs.nginx.com/nginx-ingress-controller/installation/installing-nic/installation-with-helm/>
    ("app.kubernetes.io/name", Some("nginx-ingress"), any(Product::Nginx)),
    // <https://github.com/haproxytech/kubernetes-ingress/blob/master/deploy/haproxy-ingress.yaml>
    ("run", Some("haproxy-ingress"), any(Product::Haproxy)),
    // <https://haproxy-ingress.github.io/docs/getting-started/>
    ("app.kubernetes.io/name", Some("haproxy-ingress"), any(Product::Haproxy)),
];

/// By the end of an image's name, without its tag and digest. Mirrors keep that end.
const IMAGES: &[(&str, Gateway)] = &[
    // <https://cloud.google.com/apigee/docs/hybrid/latest/container-images>
    ("apigee-asm-ingress", only(Product::ApigeeHybrid, Role::Server)),
    // <https://hub.docker.com/r/istio/proxyv2>, and Anthos Service Mesh: `asm/proxyv2`.
    ("proxyv2", any(Product::Istio)),
    // <https://hub.docker.com/r/envoyproxy/envoy>
    ("envoyproxy/envoy", any(Product::Envoy)),
    ("envoyproxy/envoy-distroless", any(Product::Envoy)),
    ("envoyproxy/envoy-contrib", any(Product::Envoy)),
    // <https://kubernetes.github.io/ingress-nginx/deploy/>
    ("ingress-nginx/controller", any(Product::Nginx)),
    // <https://docs.nginx.com/nginx-ingress-controller/technical-specifications/>
    ("nginx/nginx-ingress", any(Product::Nginx)),
    // <https://hub.docker.com/_/nginx>
    ("nginx", any(Product::Nginx)),
    ("nginx-unprivileged", any(Product::Nginx)),
    // <https://hub.docker.com/r/haproxytech/kubernetes-ingress>
    ("haproxytech/kubernetes-ingress", any(Product::Haproxy)),
    // <https://hub.docker.com/_/haproxy>
    ("haproxy", any(Product::Haproxy)),
];

const fn any(product: Product) -> Gateway {
    Gateway { product, role: None }
}

const fn only(product: Product, role: Role) -> Gateway {
    Gateway { product, role: Some(role) }
}

impl Gateway {
    /// Of a pod.
    pub fn of_labels<'a>(label: impl Fn(&str) -> Option<&'a str>) -> Option<Self> {
        let fits = |(name, value, _): &&(&str, Option<&str>, Self)| {
            label(name).is_some_and(|found| value.is_none_or(|value| value == found))
        };
        LABELS.iter().find(fits).map(|(_, _, gateway)| *gateway)
    }

    /// Of a container: `registry.example:5000/istio/proxyv2:1.27@sha256:…`.
    pub fn of_image(image: &str) -> Option<Self> {
        let name = image.split('@').next()?;
        // A colon before the last slash is a registry's.
        let from = name.rfind('/').map_or(0, |slash| slash + 1);
        let name = match name.get(from..)?.find(':') {
            Some(tag) => name.get(..from + tag)?,
            None => name,
        };
        let fits = |(end, _): &&(&str, Self)| {
            name.strip_suffix(end).is_some_and(|before| before.is_empty() || before.ends_with('/'))
        };
        IMAGES.iter().find(fits).map(|(_, gateway)| *gateway)
    }

    /// Of a process of this host, by what it calls itself.
    pub fn of_command(command: &str) -> Option<Self> {
        Some(any(match command {
            "nginx" => Product::Nginx,
            "haproxy" => Product::Haproxy,
            "envoy" => Product::Envoy,
            _ => return None,
        }))
    }

    /// What it is, on this end of a connection.
    pub fn product_as(self, role: Role) -> Option<Product> {
        self.role.is_none_or(|only| only == role).then_some(self.product)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_is_known_by_a_label_that_its_makers_document() {
        let of = |name: &str, value: &'static str| {
            Gateway::of_labels(|asked| (asked == name).then_some(value)).map(|gateway| gateway.product)
        };
        assert_eq!(of("app", "apigee-ingressgateway"), Some(Product::ApigeeHybrid));
        assert_eq!(of("istio", "ingressgateway"), Some(Product::Istio));
        assert_eq!(of("app.kubernetes.io/name", "ingress-nginx"), Some(Product::Nginx));
        assert_eq!(of("gateway.envoyproxy.io/owning-gateway-name", "any"), Some(Product::Envoy));
        assert_eq!(of("app", "web"), None);
        assert_eq!(of("istio", "pilot"), None);
    }

    #[test]
    fn an_image_is_known_by_its_name_wherever_it_comes_from() {
        let of = |image| Gateway::of_image(image).map(|gateway| gateway.product);
        for (image, product) in [
            ("envoyproxy/envoy:v1.36.0", Product::Envoy),
            ("docker.io/istio/proxyv2:1.27.1-distroless", Product::Istio),
            ("gcr.io/gke-release/asm/proxyv2@sha256:0123", Product::Istio),
            (
                "gcr.io/apigee-release/hybrid/apigee-asm-ingress:1.22.6-asm.2-distroless",
                Product::ApigeeHybrid,
            ),
            ("registry.k8s.io/ingress-nginx/controller:v1.13.0@sha256:0123", Product::Nginx),
            ("nginx", Product::Nginx),
            ("registry.example:5000/mirror/nginx", Product::Nginx),
            ("haproxy:3.2", Product::Haproxy),
        ] {
            assert_eq!(of(image), Some(product), "{image}");
        }
        for other in
            ["example/my-nginx:1", "prometheus/nginx-exporter", "example/controller:1", "", "sha256:0123"]
        {
            assert_eq!(of(other), None, "{other}");
        }
    }

    #[test]
    fn a_message_processor_is_apigee_towards_its_targets_only() {
        let runtime = Gateway::of_labels(|name| (name == "app").then_some("apigee-runtime")).unwrap();
        assert_eq!(runtime.product_as(Role::Client), Some(Product::ApigeeHybrid));
        assert_eq!(runtime.product_as(Role::Server), None);
    }
}
