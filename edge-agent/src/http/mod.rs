//! The API, the page and the figures over HTTP. Nothing here can delay a cycle: it reads atomics and copies, and hands what is
//! asked for to queues.
//!
//! ```text
//!   connection ──[seats, server: limits]──> route ──[origin, guard: who? may they?]──> handler ──> desk, writes, alarms, access
//!                                      │                                   └── not so: [problem], RFC 9457
//!                                      └── the same table of routes makes /api/v1/openapi.json
//! ```
//!
//! | file | serves |
//! |---|---|
//! | `orders`, `plant`, `acknowledge`, `alarms`, `floor`, `field`, `trust` | what their names say |
//! | `people` | signing in, users, tokens, the audit record |
//! | `live` | server-sent events |
//! | `health` | figures, health, the beat |
//! | `page` | the page itself; it does everything through the API |
//! | `entrance`, `tls` | the address it listens at, and its certificate |

mod acknowledge;
mod alarms;
mod entrance;
mod field;
mod floor;
mod guard;
mod health;
mod live;
mod orders;
mod origin;
mod page;
mod people;
mod plant;
mod problem;
mod seats;
mod server;
mod tls;
mod trust;

pub(crate) use entrance::Entrance;
pub use field::{FieldIndex, IndexedLine};
pub use problem::Problem;
pub use seats::HttpStats;
pub use server::{BODY_MAX, CONNECTIONS_MAX, HEADER_LIMIT};
pub(crate) use tls::{Door, read as tls_files};

use crate::access::Access;
use crate::alarms::AlarmDesk;
use crate::board::Board;
use crate::config::plan::HttpPlan;
use crate::desk::Desk;
use crate::lines::Reloader;
use crate::live::Live;
use crate::metrics::{Metrics, Stages};
use crate::scene::Source;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::routing::get;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::net::TcpListener;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Ref, RefOr, Response, ResponseBuilder, content::ContentBuilder};
use utoipa::{Modify, OpenApi};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The control thread is alive if it has completed a cycle since this long.
const ALIVE_WITHIN: Duration = Duration::from_secs(1);

/// What the handlers see.
pub struct Face {
    /// Exporter.
    pub metrics: Metrics,
    /// Order desk.
    pub desk: Arc<Desk>,
    /// All counters.
    pub stages: Arc<Stages>,
    /// Who may do what.
    pub access: Arc<Access>,
    /// What the core's events add up to.
    pub board: Arc<Board>,
    /// Alarms.
    pub alarms: Arc<AlarmDesk>,
    /// What the floor looks like; `None`: there is none.
    pub floor: Option<Arc<dyn Source>>,
    /// What pages see as it happens.
    pub live: Arc<Live>,
    /// The tags, to be searched.
    pub field: Arc<FieldIndex>,
    /// Name of the gateway.
    pub gateway: String,
    /// Where keys and certificates of OPC UA are.
    pub pki_dir: PathBuf,
    /// Takes another configuration over.
    pub reloader: Arc<Reloader>,
    /// Names, and proxies that are believed.
    pub door: HttpPlan,
    /// Cycles counted when last asked, and when that was.
    alive: AtomicU64,
}

/// What a face is made of.
pub struct FaceParts {
    /// Exporter.
    pub metrics: Metrics,
    /// All counters.
    pub stages: Arc<Stages>,
    /// Who may do what.
    pub access: Arc<Access>,
    /// What the core's events add up to.
    pub board: Arc<Board>,
    /// What the floor looks like.
    pub floor: Option<Arc<dyn Source>>,
    /// What pages see as it happens.
    pub live: Arc<Live>,
    /// The tags, to be searched.
    pub field: Arc<FieldIndex>,
    /// Name of the gateway.
    pub gateway: String,
    /// Where keys and certificates of OPC UA are.
    pub pki_dir: PathBuf,
    /// Takes another configuration over.
    pub reloader: Arc<Reloader>,
    /// Names, and proxies that are believed.
    pub door: HttpPlan,
}

impl Face {
    /// A face of these parts.
    pub fn new(parts: FaceParts) -> Arc<Face> {
        let FaceParts { metrics, stages, access, board, floor, live, field, gateway, pki_dir, reloader, door } = parts;
        let (desk, alarms) = (stages.desk.clone(), stages.alarms.clone());
        let alive = AtomicU64::new(u64::MAX);
        Arc::new(Face {
            metrics,
            desk,
            stages,
            access,
            board,
            alarms,
            floor,
            live,
            field,
            gateway,
            pki_dir,
            reloader,
            door,
            alive,
        })
    }

    /// Watches the beat: whether a cycle was completed within `ALIVE_WITHIN`.
    pub async fn watch_beat(self: Arc<Self>) {
        if !self.stages.has_floor {
            return; // no beat to be kept: the process answers, and that is its life
        }
        loop {
            let before = self.stages.control.cycles.load(Relaxed);
            tokio::time::sleep(ALIVE_WITHIN / 2).await;
            let moved = self.stages.control.cycles.load(Relaxed) != before;
            self.alive.store(u64::from(moved), Relaxed);
        }
    }

    /// Whether the beat is kept.
    pub fn alive(&self) -> bool {
        self.alive.load(Relaxed) != 0
    }
}

/// What every operation shares.
struct Common;

impl Modify for Common {
    fn modify(&self, api: &mut utoipa::openapi::OpenApi) {
        let components = api.components.get_or_insert_default();
        let bearer = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
        let cookie = SecurityScheme::ApiKey(ApiKey::Cookie(ApiKeyValue::new(guard::COOKIE)));
        components.add_security_scheme("token", bearer);
        components.add_security_scheme("session", cookie);
    }
}

/// Any error of any operation is a [`Problem`].
fn problem_response() -> RefOr<Response> {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    let response = ResponseBuilder::new().description("What is wrong, and what to do (RFC 9457)");
    RefOr::T(response.content("application/problem+json", content).build())
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Lightsout edge-agent",
        description = "Everything the page does goes through here. Reading is open on the gateway itself unless configured; changing \
                       anything needs a role: viewer < operator < engineer < admin."
    ),
    components(schemas(Problem)),
    modifiers(&Common),
    security(("token" = []), ("session" = []), ())
)]
struct Document;

fn routes() -> OpenApiRouter<Arc<Face>> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(orders::submit, orders::list))
        .routes(routes!(orders::one, orders::change, orders::withdraw))
        .routes(routes!(orders::decide))
        .routes(routes!(plant::write))
        .routes(routes!(acknowledge::acknowledge))
        .routes(routes!(plant::absent))
        .routes(routes!(plant::located))
        .routes(routes!(plant::reload))
        .routes(routes!(floor::scene))
        .routes(routes!(floor::now))
        .routes(routes!(floor::vehicle))
        .routes(routes!(floor::closed))
        .routes(routes!(floor::close_place, floor::open_place))
        .routes(routes!(floor::close_road, floor::open_road))
        .routes(routes!(floor::close_zone, floor::open_zone))
        .routes(routes!(field::lines))
        .routes(routes!(field::tags))
        .routes(routes!(trust::certificates))
        .routes(routes!(trust::trust))
        .routes(routes!(trust::reject))
        .routes(routes!(alarms::list))
        .routes(routes!(alarms::table))
        .routes(routes!(alarms::history))
        .routes(routes!(alarms::acknowledge))
        .routes(routes!(alarms::shelve))
        .routes(routes!(alarms::unshelve))
        .routes(routes!(health::beat))
        .routes(routes!(people::me))
        .routes(routes!(people::login))
        .routes(routes!(people::logout))
        .routes(routes!(people::setup))
        .routes(routes!(people::users, people::add_user))
        .routes(routes!(people::remove_user))
        .routes(routes!(people::add_token))
        .routes(routes!(people::audit))
        .routes(routes!(live::live))
}

/// The document of the API.
pub fn openapi() -> utoipa::openapi::OpenApi {
    document(routes().into_openapi())
}

fn document(mut api: utoipa::openapi::OpenApi) -> utoipa::openapi::OpenApi {
    for item in api.paths.paths.values_mut() {
        let operations = [&mut item.get, &mut item.post, &mut item.put, &mut item.patch, &mut item.delete];
        for operation in operations.into_iter().flatten() {
            operation.responses.responses.insert("default".into(), problem_response());
        }
    }
    api
}

/// Serves until the task is aborted, with TLS where there is a door for it.
async fn serve(face: Arc<Face>, listener: TcpListener, tls: Option<Arc<Door>>) {
    let (router, api) = routes().split_for_parts();
    let text: axum::body::Bytes = serde_json::to_vec(&document(api)).unwrap_or_default().into();
    let json = [(axum::http::header::CONTENT_TYPE, "application/json")];
    let nothing =
        async || Problem::not_found("no such page", "GET / is the page, GET /api/v1/openapi.json lists what there is");
    let wrong_method = async || {
        let detail = "GET /api/v1/openapi.json lists what there is";
        Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method", "this is not done with that method", detail)
    };
    let router: Router<Arc<Face>> = router
        .route("/api/v1/openapi.json", get(move || async move { (json, text) }))
        .route("/metrics", get(health::metrics))
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .merge(page::routes())
        .fallback(nothing)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(BODY_MAX));
    let stats = face.stages.http.clone();
    server::serve(router.with_state(face), listener, stats, tls).await;
}
