//! Clusters and sentinels.

use super::{STREAM, run};
use crate::support::redis::{Server, chat_ids, free_port, length};
use crate::support::{INSTANCE, Running, Stage, gated, small_list, wait_until};

/// Three masters that share the slots.
pub(super) fn cluster() -> Vec<Server> {
    let nodes: Vec<Server> = (0..3)
        .map(|_| Server::start(&["--cluster-enabled", "yes", "--cluster-port", "{port}"]))
        .collect();
    for (index, node) in nodes.iter().enumerate() {
        let mut connection = node.connection();
        let slots = 16384 / 3;
        let end = if index == 2 {
            16383
        } else {
            (index + 1) * slots - 1
        };
        redis::cmd("CLUSTER")
            .arg("ADDSLOTSRANGE")
            .arg(index * slots)
            .arg(end)
            .exec(&mut connection)
            .unwrap();
        redis::cmd("CLUSTER")
            .arg("SET-CONFIG-EPOCH")
            .arg(index + 1)
            .exec(&mut connection)
            .unwrap();
        let bus: Vec<String> = redis::cmd("CONFIG")
            .arg(&["GET", "cluster-port"])
            .query(&mut nodes[0].connection())
            .unwrap();
        if index > 0 {
            redis::cmd("CLUSTER")
                .arg(&["MEET", "127.0.0.1", &nodes[0].port.to_string(), &bus[1]])
                .exec(&mut connection)
                .unwrap();
        }
    }
    wait_until("the cluster is up", || {
        nodes.iter().all(|node| {
            let info: String = redis::cmd("CLUSTER")
                .arg("INFO")
                .query(&mut node.connection())
                .unwrap();
            info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3")
        })
    });
    nodes
}

/// Returns the node that has a stream.
pub(super) fn holder<'a>(nodes: &'a [Server], stream: &str) -> &'a Server {
    let holds = |node: &&Server| {
        redis::cmd("EXISTS")
            .arg(stream)
            .query::<i32>(&mut node.connection())
            .is_ok_and(|n| n == 1)
    };
    nodes.iter().find(holds).unwrap()
}

#[test]
fn a_cluster_redirects_to_the_node_of_the_stream() {
    let nodes = cluster();
    let (ids, body) = small_list(5000);
    let stage = Stage::with_body(&body);
    for queue in ["a", "b", "c", "d"] {
        let url = format!("redis+cluster://127.0.0.1:{}", nodes[0].port);
        let arguments = ["--queue", queue];
        run(&stage, &url).args(arguments).end().expect(0);
        let node = holder(&nodes, queue);
        assert_eq!(chat_ids(&mut node.connection(), queue), ids);
    }
}

#[test]
fn a_cluster_is_purged_by_label_or_queue() {
    let nodes = cluster();
    let stage = Stage::with_chats(300);
    let url = format!("redis+cluster://127.0.0.1:{}", nodes[0].port);
    for arguments in [&["--partitions", "6"][..], &[], &["--queue", "q"]] {
        run(&stage, &url).args(arguments).end().expect(0);
    }
    let purge = |arguments: &[&str]| {
        let purge = Running::new("purge").args(["--instance-id", INSTANCE, "--json"]);
        let purge = purge.args(["--sink", &url, "--older-than", "0s"]);
        purge.args(arguments).end()
    };
    let ended = purge(&[]).expect(78);
    assert!(ended.stderr.contains("name the labels with --label"));
    for (arguments, checkpoints, counts) in [
        (&["--label", "1", "--partitions", "6"][..], 6, 1),
        (&["--label", "1"], 1, 0),
        (&["--queue", "q"], 1, 0),
    ] {
        let ended = purge(arguments).expect(0);
        let line: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
        assert_eq!(line["messages"], 300, "{arguments:?}");
        assert_eq!(line["checkpoints"], checkpoints);
        assert_eq!(line["manifests"], checkpoints);
        assert_eq!(line["counts"], counts);
    }
}

#[test]
fn a_single_server_url_of_a_cluster_node_is_reported() {
    let nodes = cluster();
    let stage = Stage::with_chats(10);
    // Each stream is on one of the nodes, and not on the other two.
    let mut refused = 0;
    for node in &nodes {
        let url = format!("redis://127.0.0.1:{}", node.port);
        for queue in ["a", "b", "c"] {
            let ended = run(&stage, &url).args(["--queue", queue]).end();
            let error = ended.label()["error"].as_str().unwrap_or_default();
            let tells = error.contains("part of a Redis Cluster");
            let has_hint = ended.stderr.contains("redis+cluster://");
            let is_refused = (ended.code, tells, has_hint) == (Some(78), true, true);
            assert!(is_refused || ended.code == Some(0), "{ended:#?}");
            refused += usize::from(is_refused);
        }
    }
    assert_eq!(refused, 6);
    let refuses = |queue: &str, node: &Server| {
        let url = format!("redis://127.0.0.1:{}", node.port);
        let check = stage
            .program("check")
            .args(["--label", "1", "--sink", &url]);
        let ended = check.args(["--queue", queue]).end();
        ended.code == Some(78) && ended.stdout.contains("redis+cluster://")
    };
    let refused = nodes.iter().filter(|node| refuses("a", node)).count();
    assert_eq!(refused, 2);
}

#[test]
fn partitions_spread_over_several_nodes() {
    let nodes = cluster();
    let (mut ids, body) = small_list(5000);
    let stage = Stage::with_body(&body);
    let hosts = format!("127.0.0.1:{},127.0.0.1:{}", free_port(), nodes[1].port);
    let url = format!("redis+cluster://{hosts}");
    run(&stage, &url)
        .args(["--partitions", "6"])
        .end()
        .expect(0);
    let mut found = Vec::new();
    let mut ports = std::collections::BTreeSet::new();
    for partition in 0..6 {
        let stream = format!("{STREAM}:{{{partition}}}");
        let node = holder(&nodes, &stream);
        ports.insert(node.port);
        found.extend(chat_ids(&mut node.connection(), &stream));
    }
    found.sort();
    ids.sort();
    assert_eq!(found, ids);
    assert!(ports.len() > 1, "{ports:?}");
}

#[test]
fn a_failover_during_a_run_loses_nothing() {
    let mut master = Server::start(&[]);
    let port = master.port.to_string();
    let replica = Server::start(&["--replicaof", "127.0.0.1", &port]);
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("sentinel.conf");
    let text = format!(
        "sentinel monitor main 127.0.0.1 {port} 1\nsentinel down-after-milliseconds main 500\n\
         sentinel failover-timeout main 3000\n"
    );
    std::fs::write(&config, text).unwrap();
    let sentinel = Server::sentinel(config.to_str().unwrap());
    wait_until("the sentinel knows the replica", || {
        let found: Vec<redis::Value> = redis::cmd("SENTINEL")
            .arg(&["REPLICAS", "main"])
            .query(&mut sentinel.connection())
            .unwrap_or_default();
        found.len() == 1
    });
    let (ids, body) = small_list(20_000);
    let stage = Stage::with_body(&body);
    let (reply, gate) = gated(&body);
    stage.mock.script("1", reply);
    let url = format!("redis+sentinel://127.0.0.1:{}/main", sentinel.port);
    let process = run(&stage, &url).args(["--retries", "20"]).spawn();
    wait_until("the first half is being published", || {
        length(&mut master.connection(), STREAM) > 2000
    });
    master.kill();
    gate.cancel();
    let ended = process.end().expect(0);
    assert_eq!(chat_ids(&mut replica.connection(), STREAM), ids);
    assert_eq!(ended.label()["published"], 20_000);
}
