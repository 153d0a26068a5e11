//! Networks of deployments.

use std::collections::{BTreeMap, HashMap};

use bollard::models::NetworkCreateRequest;

use super::{
    Docker,
    failure::{Asked, failed, is_absent},
};
use crate::error::{Error, Result};

impl Docker {
    /// Makes the bridge network `name` with these labels, unless it is there; whether it was made. A network of
    /// that name that lacks one of the labels belongs to someone else and is an error.
    pub async fn ensure_network(&self, name: &str, labels: &BTreeMap<String, String>) -> Result<bool> {
        match self.client.inspect_network(name, None).await {
            Ok(found) => {
                let there = found.labels.unwrap_or_default();
                if labels.iter().all(|(key, value)| there.get(key) == Some(value)) {
                    return Ok(false);
                }
                return Err(Error::failed(format!(
                    "a Docker network `{name}` is there that bedplate did not make"
                ))
                .hint(format!("remove it with `docker network rm {name}`")));
            }
            Err(error) if is_absent(&error) => {}
            Err(error) => return Err(failed(Asked::Network(name), error)),
        }
        let request = NetworkCreateRequest {
            name: name.to_owned(),
            driver: Some("bridge".to_owned()),
            labels: Some(labels.clone().into_iter().collect::<HashMap<_, _>>()),
            ..NetworkCreateRequest::default()
        };
        self.client.create_network(request).await.map_err(|error| failed(Asked::Network(name), error))?;
        Ok(true)
    }

    /// Removes the network `name`; one that is not there is no error.
    pub async fn remove_network(&self, name: &str) -> Result<()> {
        match self.client.remove_network(name).await {
            Ok(()) => Ok(()),
            Err(error) if is_absent(&error) => Ok(()),
            Err(error) => Err(failed(Asked::Network(name), error)),
        }
    }
}
